#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <tuple>
#include <utility>

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

/// Hands out stripes to workers: large runs first, which stream well, then ever smaller ones, so that all end together.
class StripeQueue {
 public:
  StripeQueue(size_t n_stripes, size_t n_workers) : n_stripes_(n_stripes), n_workers_(n_workers) {}

  /// The next run of stripes [first, last), a whole number of kernel jobs but for the end; empty when all are taken.
  std::pair<size_t, size_t> take() {
    constexpr size_t kJobStripes = kMaxJobRows / kStripeRows;
    size_t first = next_.load(std::memory_order_relaxed);
    while (first < n_stripes_) {
      const size_t share = (n_stripes_ - first) / (2 * n_workers_);
      const size_t last = std::min(first + std::max(share / kJobStripes * kJobStripes, kJobStripes), n_stripes_);
      if (next_.compare_exchange_weak(first, last, std::memory_order_relaxed)) return {first, last};
    }
    return {n_stripes_, n_stripes_};
  }

 private:
  size_t n_stripes_, n_workers_;
  std::atomic<size_t> next_{0};
};

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
  StripeQueue queue(n_stripes, n_workers);
  parallel_workers([&](int worker, int) {
    StripeJob mine = job;
    mine.sums += static_cast<size_t>(worker) * x.n_tokens() * kMaxJobRows;
    for (auto [first, last] = queue.take(); first < last; std::tie(first, last) = queue.take()) {
      mine.first_stripe = first;
      mine.last_stripe = last;
      entry.run(mine);
    }
  });
}

}  // namespace mneme::kernels
