#include "kernels/matmul.h"

#include <cassert>
#include <span>

#include "base/error.h"
#include "base/parallel.h"

namespace mneme::kernels {

bool can_multiply(DType dtype) {
  return dtype_info(dtype).decode != nullptr;
}

size_t packed_bytes(DType, size_t, size_t) {
  return 0;
}

Matrix pack_matrix(const Matrix& plain, std::byte*) {
  return plain;
}

MatmulInput::MatmulInput(Ledger& ledger) : ledger_(&ledger) {}

void MatmulInput::set(const float* x, size_t n_tokens, size_t columns) {
  x_ = x;
  n_tokens_ = n_tokens;
  columns_ = columns;
}

std::span<float> MatmulInput::row_scratch(size_t n) {
  if (rows_.size() < n * sizeof(float)) {
    rows_ = Buffer();
    rows_ = Buffer(*ledger_, Tag::kScratch, n * sizeof(float), "matrix product");
  }
  return rows_.as<float>();
}

size_t matmul_scratch_bytes(size_t, size_t columns) {
  return static_cast<size_t>(n_threads()) * columns * sizeof(float) + 4096;
}

void matmul(const Matrix& w, MatmulInput& x, const float* bias, float* y, size_t y_stride) {
  assert(w.columns == x.columns());
  const DTypeInfo& info = dtype_info(w.dtype);
  if (info.decode == nullptr) fail(ErrorCode::kUnsupported, "[matmul] type {} cannot be read", info.name);
  const size_t stride = row_bytes(w.dtype, w.columns);
  const std::span<float> rows = x.row_scratch(static_cast<size_t>(n_threads()) * w.columns);
  parallel_workers([&](int worker, int n_workers) {
    const auto part = static_cast<size_t>(worker), parts = static_cast<size_t>(n_workers);
    float* row = rows.data() + part * w.columns;
    for (size_t r = w.rows * part / parts; r < w.rows * (part + 1) / parts; ++r) {
      info.decode(w.data + r * stride, row, w.columns);
      for (size_t t = 0; t < x.n_tokens(); ++t) {
        const float* xt = x.x() + t * w.columns;
        float sum = 0;
        for (size_t k = 0; k < w.columns; ++k) sum += row[k] * xt[k];
        y[t * y_stride + r] = bias != nullptr ? sum + bias[r] : sum;
      }
    }
  });
}

}  // namespace mneme::kernels
