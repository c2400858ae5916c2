#include "model/layers.h"

#include <algorithm>

#include "base/parallel.h"
#include "kernels/vector_ops.h"

namespace mneme {

uint64_t WeightMatrix::product_bytes(bool pack) const {
  const uint64_t repacked = pack ? packed_bytes() : 0;
  return repacked > 0 ? repacked : stored.bytes();
}

void WeightMatrix::release_stored(size_t offset, size_t length) const {
  if (mapping == nullptr) return;
  mapping->release(static_cast<size_t>(stored.data - mapping->bytes().data()) + offset, length);
}

void Linear::apply(kernels::MatmulInput& x, float* y, size_t y_stride) const {
  kernels::matmul(weight->active, x, bias, y, y_stride);
}

void Norm::apply(const float* x, size_t n_rows, size_t stride, float* y) const {
  const kernels::VectorOps& ops = kernels::vector_ops();
  parallel_for(n_rows, std::max<size_t>(1, 16384 / std::max<size_t>(1, size)), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      if (kind == Kind::kRms) {
        ops.rms_norm(x + r * stride, weight, eps, size, y + r * stride);
      } else {
        ops.layer_norm(x + r * stride, weight, bias, eps, size, y + r * stride);
      }
    }
  });
}

void add_to(const float* x, size_t n, float* y) {
  parallel_for(n, 16384, [&](size_t begin, size_t end) {
    kernels::vector_ops().add(y + begin, x + begin, end - begin, y + begin);
  });
}

}  // namespace mneme
