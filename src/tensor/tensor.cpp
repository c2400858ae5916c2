#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cassert>
#include <span>

#include "base/error.h"
#include "tensor/weight_format.h"

namespace mneme {

Shape::Shape(std::initializer_list<uint64_t> extents) {
  assert(extents.size() <= kMaxRank);
  for (uint64_t extent : extents) extents_[rank_++] = extent;
}

void Shape::push_outer(uint64_t extent) {
  assert(rank_ < kMaxRank);
  for (size_t i = rank_; i > 0; --i) extents_[i] = extents_[i - 1];
  extents_[0] = extent;
  ++rank_;
}

uint64_t Shape::elements() const {
  uint64_t product = 1;
  for (size_t i = 0; i < rank_; ++i) product *= extents_[i];
  return product;
}

std::string Shape::to_string() const {
  return fmt::format("[{}]", fmt::join(std::span(extents_.data(), rank_), ", "));
}

void decode_row(const TensorView& tensor, uint64_t i, float* out) {
  if (!can_decode(tensor.dtype)) {
    fail(ErrorCode::kUnsupported, "[decode] type {} cannot be read", dtype_info(tensor.dtype).name);
  }
  weight_format(tensor.dtype).decode_tile(tensor, {i, 1, 0, tensor.columns()}, out, tensor.columns());
}

}  // namespace mneme
