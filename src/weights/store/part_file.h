#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "weights/store/sha256.h"

namespace mneme {

/// What is remembered of an unfinished download.
struct PartState {
  std::string url;
  std::string validator;  ///< Strong ETag or Last-Modified: what a resumption is conditional on.
  std::optional<uint64_t> total;
  std::string sha256;  ///< Digest that the server announced, or empty.
};

/// The unfinished file of a download and its state: PATH.part and PATH.part.json. Locked against other processes while
/// it lives; what it holds stays on disk when it goes, for the next attempt.
class PartFile {
 public:
  /// Opens or creates. Throws Error(kIo), also when another process holds the file.
  explicit PartFile(const std::string& path);
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile();

  /// State of an earlier attempt; nothing when there is none or it cannot be read.
  std::optional<PartState> load_state() const;
  void save_state(const PartState& state) const;

  /// Reads the bytes that are there, for the digest.
  void hash_existing();
  /// Throws all bytes away.
  void restart();
  /// Adds bytes at the end.
  void append(std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  std::string sha256() const { return hash_.hex(); }

  /// Makes the bytes durable as PATH and removes the state.
  void finish();
  /// Removes the bytes and the state.
  void discard();

 private:
  std::string path_, part_, state_;
  int file_ = -1;
  uint64_t size_ = 0;
  Sha256 hash_;
};

}  // namespace mneme
