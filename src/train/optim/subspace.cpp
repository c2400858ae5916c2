#include "train/optim/subspace.h"

#include "train/ops/gemm.h"

namespace mneme::train {
namespace {

/// Products with g [rows, columns].
auto products_of(const float* g, size_t rows, size_t columns) {
  return [=](const float* x, size_t n, bool transposed, float* y) {
    const size_t in = transposed ? rows : columns, out = transposed ? columns : rows;
    gemm({n, out, in, false, !transposed, in, columns, out}, 1.0f, x, g, 0.0f, y);
  };
}

}  // namespace

void SubspaceFinder::left(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis) {
  const auto multiply = products_of(g, rows, columns);
  finder_.left({rows, columns, multiply}, rank, draw, basis);
}

void SubspaceFinder::right(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis) {
  const auto multiply = products_of(g, rows, columns);
  finder_.right({rows, columns, multiply}, rank, draw, basis);
}

}  // namespace mneme::train
