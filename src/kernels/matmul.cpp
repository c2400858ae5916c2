#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <cassert>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "kernels/cpu.h"
#include "kernels/products/packing.h"
#include "kernels/products/product_table.h"

namespace mneme::kernels {

using namespace products;

const ProductTable& products::product_table() {
  switch (active_target()) {
#if defined(__x86_64__)
    case Target::kAvx512:
      return avx512_table();
    case Target::kAvx2:
      return avx2_table();
#endif
    default:
      return portable_table();
  }
}

bool can_multiply(DType dtype) {
  return product_table().find(dtype, Layout::kPlain).run != nullptr;
}

size_t packed_bytes(DType dtype, size_t rows, size_t columns) {
  return packed_size(dtype, rows, columns);
}

Matrix pack_matrix(const Matrix& plain, std::byte* out) {
  assert(plain.layout == Layout::kPlain && packed_size(plain.dtype, plain.rows, plain.columns) > 0);
  parallel_for(div_up(plain.rows, kStripeRows), 4,
               [&](size_t begin, size_t end) { pack_stripes(plain, begin, end, out); });
  return {plain.dtype, Layout::kPacked, plain.rows, plain.columns, out};
}

namespace {

/// Products below this many multiplications run on the calling thread: waking the others takes longer.
constexpr size_t kSerialProducts = size_t{1} << 16;

/// Stripes that a worker takes at a time: enough parts to even out the workers, large enough to stream.
size_t stripes_a_part(size_t n_stripes, size_t n_workers) {
  constexpr size_t kPartsAWorker = 8;
  return round_up(std::max<size_t>(1, n_stripes / (n_workers * kPartsAWorker)), kMaxJobRows / kStripeRows);
}

}  // namespace

void matmul(const Matrix& w, MatmulInput& x, const float* bias, float* y, size_t y_stride) {
  assert(w.columns == x.columns());
  const ProductEntry entry = product_table().find(w.dtype, w.layout);
  if (entry.run == nullptr) {
    fail(ErrorCode::kUnsupported, "[matmul] type {} cannot be multiplied", dtype_info(w.dtype).name);
  }
  if (w.rows == 0 || w.columns == 0 || x.n_tokens() == 0) return;
  const auto n_workers = static_cast<size_t>(n_threads());
  StripeJob job{};
  job.matrix = &w;
  job.n_tokens = x.n_tokens();
  job.bias = bias;
  job.y = y;
  job.y_stride = y_stride;
  x.prepare(entry, n_workers, job);

  const size_t n_stripes = div_up(w.rows, kStripeRows);
  if (n_workers == 1 || w.rows * w.columns * x.n_tokens() < kSerialProducts) {
    job.last_stripe = n_stripes;
    entry.run(job);
    return;
  }
  const size_t part = stripes_a_part(n_stripes, n_workers);
  std::atomic<size_t> next{0};
  parallel_workers([&](int worker, int) {
    StripeJob mine = job;
    mine.sums += static_cast<size_t>(worker) * x.n_tokens() * kMaxJobRows;
    for (size_t first = next.fetch_add(part); first < n_stripes; first = next.fetch_add(part)) {
      mine.first_stripe = first;
      mine.last_stripe = std::min(first + part, n_stripes);
      entry.run(mine);
    }
  });
}

}  // namespace mneme::kernels
