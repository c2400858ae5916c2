#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "tensor/dtype.h"

namespace mneme {

/// Extents of a tensor, outermost first (row-major, the last one is contiguous); at most four.
/// A weight matrix is [outputs, inputs], a stack of experts [experts, outputs, inputs].
class Shape {
 public:
  static constexpr size_t kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<uint64_t> extents);

  size_t rank() const { return rank_; }
  uint64_t operator[](size_t i) const { return extents_[i]; }
  /// Extent counted from the innermost: from_last(0) is the contiguous one; 1 beyond the rank.
  uint64_t from_last(size_t i) const { return i < rank_ ? extents_[rank_ - 1 - i] : 1; }
  void push_outer(uint64_t extent);  ///< Adds an outermost extent; the rank must be below kMaxRank.
  uint64_t elements() const;         ///< Product; the caller has checked that it fits.
  bool operator==(const Shape& other) const = default;
  std::string to_string() const;     ///< "[4096, 2048]"

 private:
  std::array<uint64_t, kMaxRank> extents_{};
  size_t rank_ = 0;
};

namespace bitstack {
struct BlockList;
}  // namespace bitstack

/// A tensor somebody else owns: type, shape and contiguous bytes.
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const std::byte* data = nullptr;
  uint64_t stream_bytes = 0;  ///< Size of types for which is_stream() holds; 0 for all others.
  /// Of kBitStack, whose `data` is only a directory: where the blocks lie (tensor/bitstack.h). Null: not at hand.
  const bitstack::BlockList* blocks = nullptr;

  uint64_t columns() const { return shape.from_last(0); }
  uint64_t rows() const { return shape.elements() / columns(); }  ///< All outer extents together.
  size_t bytes() const { return stream_bytes > 0 ? stream_bytes : row_bytes(dtype, columns()) * rows(); }
  /// Of types that are rows of blocks.
  const std::byte* row(uint64_t i) const { return data + row_bytes(dtype, columns()) * i; }
};

/// Decodes row `i` of a view to columns() floats.
void decode_row(const TensorView& tensor, uint64_t i, float* out);

}  // namespace mneme
