#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "weights/model_file.h"
#include "weights/tensor_source.h"

namespace mneme {

/// Writes a GGUF v3 file in one pass: metadata and all tensor infos first, then the bytes of the tensors in that order,
/// in pieces of any size. The file appears under its name when finish() returns, or not at all.
class GgufWriter {
 public:
  /// Creates the file and writes its header. The alignment is that of the metadata, 32 without one. Throws
  /// Error(kInvalidArgument) for names or shapes that the format cannot hold, Error(kIo) when the disk refuses.
  GgufWriter(const std::string& path, const Metadata& metadata, std::vector<TensorInfo> tensors);

  /// Appends bytes to the current tensor and goes on to the next when it is complete. A piece must not reach over the
  /// end of a tensor.
  void write(std::span<const std::byte> bytes);
  /// Makes the file durable. All tensors must be complete.
  void finish();

  /// Bytes written so far.
  uint64_t offset() const { return file_.offset(); }

 private:
  template <typename T>
  void number(T value);
  void string(std::string_view text);
  void value(const MetadataValue& value);
  void pad();

  AtomicFile file_;
  std::vector<TensorInfo> tensors_;
  uint64_t alignment_ = 32;
  size_t current_ = 0;
  uint64_t written_ = 0;  ///< Bytes of the current tensor.
};

/// Bytes of the file that a GgufWriter makes of this.
uint64_t gguf_bytes(const Metadata& metadata, std::span<const TensorInfo> tensors);

/// Writes a whole model whose tensors are in memory.
void write_gguf(const std::string& path, const Metadata& metadata, std::span<const NamedTensor> tensors);

}  // namespace mneme
