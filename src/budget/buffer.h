#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "budget/ledger.h"

namespace mneme {

/// Owned memory that is counted in a ledger: 64-byte aligned, zeroed, on huge pages where the kernel has them and the
/// size is worth it. Move-only.
class Buffer {
 public:
  Buffer() = default;
  /// Throws Error(kOutOfBudget) before anything is allocated. `what` names the holder in messages.
  Buffer(Ledger& ledger, Tag tag, size_t bytes, std::string what);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  /// What a Buffer of `bytes` takes from the ledger: whole pages.
  static size_t reserved_bytes(size_t bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  /// The content as an array of T, size() / sizeof(T) elements.
  template <typename T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
  }

 private:
  void free();

  Reservation reservation_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

/// Address space reserved once, made usable (and counted) page by page: the start never moves, so kernels keep a plain
/// pointer while it grows. Memory of one owner; MappedRange is the one that shares pages.
class GrowingBuffer {
 public:
  GrowingBuffer() = default;
  /// Reserves addresses for `capacity` bytes; uses no memory yet.
  GrowingBuffer(Ledger& ledger, Tag tag, size_t capacity, std::string what);
  GrowingBuffer(GrowingBuffer&& other) noexcept;
  GrowingBuffer& operator=(GrowingBuffer&& other) noexcept;
  ~GrowingBuffer();

  /// Makes at least `bytes` usable, in steps of kStepBytes. Throws Error(kOutOfBudget); then nothing changes.
  void grow_to(size_t bytes);
  /// Gives the memory beyond `bytes` back.
  void shrink_to(size_t bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t committed() const { return committed_; }
  size_t capacity() const { return capacity_; }

  static constexpr size_t kStepBytes = 4096;

 private:
  void free();

  Reservation reservation_;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0, committed_ = 0;
};

}  // namespace mneme
