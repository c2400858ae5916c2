#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include "base/checked_math.h"
#include "budget/buffer.h"

namespace mneme::ann {

/// An array of plain values in counted memory that grows in place, in steps of 1/16 of itself.
template <typename T>
class GrowingArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  GrowingArray(Ledger& ledger, Tag tag, std::string what) : buffer_(ledger, tag, kMostBytes, std::move(what)) {}

  size_t size() const { return size_; }
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(buffer_.data()); }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

  /// Elements beyond the old size are zero bytes. Throws Error(kOutOfBudget); then nothing changes.
  void resize(size_t n) {
    const size_t needed = n * sizeof(T);
    if (needed > buffer_.committed()) {
      buffer_.grow_to(std::min(kMostBytes, round_up(std::max(needed, buffer_.committed() / 16 * 17), kStepBytes)));
    }
    if (n > size_) std::fill_n(reinterpret_cast<std::byte*>(data() + size_), (n - size_) * sizeof(T), std::byte{0});
    size_ = n;
  }
  void push_back(const T& value) {
    resize(size_ + 1);
    data()[size_ - 1] = value;
  }
  /// Empties the array and gives its memory back.
  void clear() {
    size_ = 0;
    buffer_.shrink_to(0);
  }

  uint64_t bytes() const { return buffer_.committed(); }

 private:
  static constexpr size_t kMostBytes = size_t{1} << 36;  // of addresses, not of memory
  static constexpr size_t kStepBytes = size_t{64} << 10;

  GrowingBuffer buffer_;
  size_t size_ = 0;
};

}  // namespace mneme::ann
