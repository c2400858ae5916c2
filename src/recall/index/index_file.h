#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/atomic_file.h"
#include "recall/index/vector_index.h"

namespace mneme::ann {

/// What an index file holds.
enum class IndexFileKind : uint32_t { kExact = 1, kHnsw = 2, kSpann = 4 };

struct IndexFileHeader {
  IndexFileKind kind;
  Metric metric;
  uint64_t dimension;
};

/// The header of an index file, 64 bytes.
std::string index_file_head(const IndexFileHeader& header);
/// What stands behind a payload: its length and checksum, 16 bytes.
std::string index_file_tail(uint64_t payload_bytes, uint64_t payload_checksum);

/// Writes an index file: 64 bytes of header, the payload piece by piece, 16 bytes with its length and checksum. The
/// file appears complete or not at all. docs/formats/vector-index.md has the layout.
class IndexFileWriter {
 public:
  IndexFileWriter(const std::string& path, const IndexFileHeader& header);
  ~IndexFileWriter();

  template <typename T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    write(std::as_bytes(std::span(&value, 1)));
  }
  template <typename T>
  void put_all(std::span<T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    write(std::as_bytes(values));
  }
  void write(std::span<const std::byte> bytes);
  /// Makes the file durable under its name.
  void commit();

 private:
  struct Checksum;
  AtomicFile file_;
  std::unique_ptr<Checksum> checksum_;
  uint64_t payload_bytes_ = 0;
};

struct IndexFile {
  IndexFileHeader header;
  std::span<const std::byte> payload;  ///< Inside the bytes that were given.
};

/// Checks magic, version, both checksums, kind and ranges. Throws Error(kCorruptData), or Error(kUnsupported) for a
/// newer version. `what` names the source.
IndexFile parse_index_file(std::span<const std::byte> bytes, IndexFileKind kind, std::string_view what);

}  // namespace mneme::ann
