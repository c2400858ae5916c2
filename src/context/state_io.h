#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

#include "base/error.h"

namespace mneme {

/// Where a state is written to: a file, a buffer, a checksum. Numbers are little-endian, as on every machine mneme runs
/// on.
class StateWriter {
 public:
  virtual ~StateWriter() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;

  template <typename T>
  void put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    write(std::as_bytes(std::span(&value, 1)));
  }
};

/// Only counts.
class CountingWriter : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { bytes_ += bytes.size(); }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

/// Fills memory that was counted before.
class SpanWriter : public StateWriter {
 public:
  explicit SpanWriter(std::span<std::byte> room) : room_(room) {}
  void write(std::span<const std::byte> bytes) override {
    if (bytes.size() > room_.size()) {
      fail(ErrorCode::kInvalidArgument, "[save state] expected at most {} bytes, found {}", room_.size(), bytes.size());
    }
    if (!bytes.empty()) std::memcpy(room_.data(), bytes.data(), bytes.size());
    room_ = room_.subspan(bytes.size());
  }

 private:
  std::span<std::byte> room_;
};

/// Bytes that a state is read from; every step is checked. `what` names them in messages and outlives the reader.
class StateReader {
 public:
  StateReader(std::span<const std::byte> bytes, const char* what) : bytes_(bytes), what_(what) {}

  /// The next n bytes. Throws Error(kCorruptData) when there are fewer.
  std::span<const std::byte> take(size_t n) {
    if (n > bytes_.size())
      fail(ErrorCode::kCorruptData, "[load {}] expected {} bytes more, found {}", what_, n, bytes_.size());
    const auto taken = bytes_.first(n);
    bytes_ = bytes_.subspan(n);
    return taken;
  }
  template <typename T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  void copy_to(std::byte* out, size_t n) {
    const auto taken = take(n);
    if (n > 0) std::memcpy(out, taken.data(), n);
  }
  size_t remaining() const { return bytes_.size(); }
  /// Throws Error(kCorruptData) when bytes are left over.
  void finish() const {
    if (!bytes_.empty())
      fail(ErrorCode::kCorruptData, "[load {}] expected the end, found {} bytes more", what_, bytes_.size());
  }

 private:
  std::span<const std::byte> bytes_;
  const char* what_;
};

}  // namespace mneme
