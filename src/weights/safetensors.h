#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "tensor/dtype.h"

namespace mneme {

/// A tensor of a safetensors file: row-major, of any rank, at any alignment.
struct SafeTensor {
  std::string name;
  std::string_view dtype_name;  ///< As in the file, e.g. "BF16".
  std::optional<DType> dtype;   ///< The same type here; nothing for those that mneme does not compute with.
  std::vector<uint64_t> shape;  ///< Empty for a scalar; an extent may be 0.
  std::span<const std::byte> bytes;
};

/// Parses and validates one safetensors file given as bytes; `source` names it in messages. The header is read as a
/// stream, so memory stays within a small multiple of it whatever its content. Throws Error(kCorruptData) whose message
/// names the tensor. Tensors come in the order of their data.
std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& source);

/// One safetensors file, or all files that an index lists.
class SafetensorsSet {
 public:
  /// `path`: a file *.safetensors, an index *.safetensors.index.json, or a folder with model.safetensors.index.json or
  /// model.safetensors. Files of an index must lie beside it and hold what it says.
  static SafetensorsSet open(const std::string& path);

  std::span<const SafeTensor> tensors() const { return tensors_; }
  const SafeTensor* find(std::string_view name) const;
  std::span<const MappedFile> files() const { return files_; }
  /// Hands the mappings over; the tensors stay valid as long as their new holder.
  std::vector<MappedFile> take_files() { return std::move(files_); }

 private:
  void add_file(const std::string& path);

  std::vector<MappedFile> files_;
  std::vector<SafeTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace mneme
