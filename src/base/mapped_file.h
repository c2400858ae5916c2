#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace mneme {

/// A file mapped read-only; pages are loaded when touched. Move-only; unmapped at the end of its life.
///
/// The size is taken once, when the file is opened. A file that another program truncates later raises SIGBUS when the
/// lost pages are read: replace model files by rename, never in place.
class MappedFile {
 public:
  /// Opens and maps `path`. Throws Error(kNotFound or kIo). An empty file gives an empty span.
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  /// Asks the kernel to read [offset, offset + length) ahead.
  void will_need(size_t offset, size_t length) const;
  /// Gives the resident pages that [offset, offset + length) touches back; they are read again when needed.
  void release(size_t offset, size_t length) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mneme
