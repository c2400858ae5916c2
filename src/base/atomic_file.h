#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mneme {

/// Writes a file that appears complete or not at all: bytes go to a temporary neighbour, commit() syncs and renames it.
/// Without commit() the temporary is removed. Throws Error(kIo) that names the path, a full disk included.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Bytes written so far.
  uint64_t offset() const { return offset_; }
  /// Makes the content durable under the final name, replacing any older file.
  void commit();

 private:
  void flush();

  std::string path_, temporary_;
  int file_ = -1;
  uint64_t offset_ = 0;
  std::string pending_;
};

/// Gives a synced file its final name, replacing any older one, and makes the name durable. Throws Error(kIo).
void rename_durably(const std::string& from, const std::string& to);

/// Whole file as bytes in a string; refuses files above `max_bytes`. Throws Error.
std::string read_text_file(const std::string& path, uint64_t max_bytes = uint64_t{1} << 30);

}  // namespace mneme
