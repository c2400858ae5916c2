#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace mneme::ann {

/// A file that is changed in place and survives crashes: what was written before sync() returned is there after the
/// power failed; what was written since may or may not be. Tests derive from it to break it.
class DurableFile {
 public:
  /// Opens `path` for reading and writing, creating it when missing. Throws Error(kIo).
  explicit DurableFile(const std::string& path);
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  virtual ~DurableFile();

  /// Writes all bytes at `offset`. Throws Error(kIo), a full disk included; then any part of them may be written.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  /// Makes everything written so far durable. Throws Error(kIo); then nothing is known about what was written since.
  void sync();
  void truncate(uint64_t bytes);
  uint64_t size() const;
  int descriptor() const { return file_; }
  const std::string& path() const { return path_; }

 protected:
  virtual ssize_t write_some(uint64_t offset, std::span<const std::byte> bytes);
  virtual int sync_now();
  virtual int truncate_now(uint64_t bytes);

 private:
  std::string path_;
  int file_ = -1;
};

/// Makes the names in a folder durable: files that were created, renamed or removed.
void sync_folder(const std::string& path);

}  // namespace mneme::ann
