#pragma once

#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme::ann {

/// Reads plain values, little endian as in all of mneme's files; throws Error(kCorruptData) instead of reading past the
/// end.
class ByteReader {
 public:
  /// `what` names the source in messages.
  ByteReader(std::span<const std::byte> bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  template <typename T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  /// The next `n` bytes.
  std::span<const std::byte> take(size_t n) {
    if (n > left()) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected {} bytes at offset {}, found {}", what_, n, at_, left());
    }
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }
  /// The next elements, as many as `out` has.
  template <typename T>
  void get_all(std::span<T> out) {
    const auto bytes = take(out.size_bytes());
    if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  }
  /// Throws unless n elements of `element_bytes` each are left; for counts, before memory is made for them.
  void expect_left(uint64_t n, uint64_t element_bytes) const {
    const auto bytes = checked_mul<uint64_t>(n, element_bytes);
    if (!bytes || *bytes > left()) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected {} elements of {} bytes at offset {}, found {} bytes",
           what_, n, element_bytes, at_, left());
    }
  }
  size_t left() const { return bytes_.size() - at_; }
  std::string_view what() const { return what_; }

 private:
  std::span<const std::byte> bytes_;
  std::string_view what_;
  size_t at_ = 0;
};

}  // namespace mneme::ann
