#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <tuple>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "kernels/aqlm_product.h"
#include "kernels/bitstack_product.h"
#include "kernels/cpu.h"
#include "kernels/products/packing.h"
#include "kernels/products/product_table.h"
#include "tensor/bipolar.h"

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
  return {plain.dtype, Layout::kPacked, plain.rows, plain.columns, out, 0, nullptr, plain.input_limit};
}

bool wants_bit_planes(DType dtype, int bits) {
  // Where planes were measured to be faster for one token: docs/results/weights.md. Without an instruction that counts
  // bits they are sooner the slower ones.
  const int weight_bits = bipolar::bits_of(dtype);
  if (bits < 1 || bits >= 8 || weight_bits < 1 || weight_bits > 4) return false;
  if (weight_bits == 1) return true;
  if (active_target() == Target::kAvx512) return bits <= 4;
  return bits <= (weight_bits < 4 ? 3 : 2);
}

Matrix pack_bit_planes(const Matrix& plain, int bits, std::byte* out) {
  assert(plain.layout == Layout::kPlain && bipolar::bits_of(plain.dtype) > 0 && bits >= 1 && bits <= 8);
  parallel_for(div_up(plain.rows, kStripeRows), 4,
               [&](size_t begin, size_t end) { pack_plane_stripes(plain, begin, end, out); });
  return {plain.dtype, Layout::kBitPlanes, plain.rows, plain.columns, out, static_cast<uint8_t>(bits)};
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

/// Most tasks of one parallel loop.
constexpr size_t kMostTasks = 8;

ProductEntry entry_of(const MatmulTask& task) {
  if (task.w.plane_bits > 0 && bipolar::bits_of(task.w.dtype) > 0) {
    ProductEntry entry = product_table().find_planes(task.w.dtype, task.w.layout);
    entry.bits = task.w.plane_bits;
    return entry;
  }
  const ProductEntry entry = product_table().find(task.w.dtype, task.w.layout);
  if (entry.run == nullptr) {
    fail(ErrorCode::kUnsupported, "[matmul] type {} cannot be multiplied", dtype_info(task.w.dtype).name);
  }
  return entry;
}

/// True when the task has a way of its own for so few tokens.
bool goes_alone(const MatmulTask& task, const MatmulInput& x) {
  return wants_signs(task.w, x.n_tokens()) || wants_tables(task.w, x.n_tokens());
}

/// True when both read the input in the same form, but for the limit of static scales.
bool same_form(const ProductEntry& a, const ProductEntry& b) {
  return a.currency == b.currency && a.group == b.group && a.zero == b.zero && a.bits == b.bits;
}

/// Stripes of a matrix, rounded up to whole kernel jobs.
size_t queued_stripes(const Matrix& w) {
  return round_up(div_up(w.rows, kStripeRows), kMaxJobRows / kStripeRows);
}

/// Runs tasks of one form; `job` holds what they share.
void run_together(std::span<const MatmulTask> tasks, const StripeJob& job) {
  const auto n_workers = static_cast<size_t>(n_threads());
  StripeJob jobs[kMostTasks];
  decltype(ProductEntry::run) run[kMostTasks];
  size_t begin[kMostTasks + 1] = {};
  size_t n_products = 0;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const MatmulTask& task = tasks[i];
    jobs[i] = job;
    jobs[i].matrix = &task.w;
    jobs[i].bias = task.bias;
    jobs[i].y = task.y;
    jobs[i].y_stride = task.y_stride;
    jobs[i].last_stripe = div_up(task.w.rows, kStripeRows);
    run[i] = entry_of(task).run;
    begin[i + 1] = begin[i] + queued_stripes(task.w);
    n_products += task.w.rows * task.w.columns * job.n_tokens;
  }
  if (n_workers == 1 || n_products < kSerialProducts) {
    for (size_t i = 0; i < tasks.size(); ++i) run[i](jobs[i]);
    return;
  }
  StripeQueue queue(begin[tasks.size()], n_workers);
  parallel_workers([&](int worker, int) {
    for (auto [first, last] = queue.take(); first < last; std::tie(first, last) = queue.take()) {
      for (size_t i = 0; i < tasks.size(); ++i) {
        StripeJob mine = jobs[i];
        mine.sums += static_cast<size_t>(worker) * job.n_tokens * kMaxJobRows;
        mine.first_stripe = std::max(first, begin[i]) - begin[i];
        mine.last_stripe = std::min(std::max(last, begin[i]) - begin[i], jobs[i].last_stripe);
        if (mine.first_stripe < mine.last_stripe) run[i](mine);
      }
    }
  });
}

}  // namespace

void matmul(std::span<const MatmulTask> tasks, MatmulInput& x) {
  if (x.n_tokens() == 0) return;
  if (x.observer_) x.observer_(tasks, x);
  while (!tasks.empty()) {
    if (goes_alone(tasks.front(), x)) {
      tasks.front().w.dtype == DType::kAqlm ? multiply_by_tables(tasks.front(), x)
                                            : multiply_by_signs(tasks.front(), x);
      tasks = tasks.subspan(1);
      continue;
    }
    const ProductEntry entry = entry_of(tasks.front());
    size_t n = 1;
    while (n < std::min(tasks.size(), kMostTasks) && same_form(entry, entry_of(tasks[n])) &&
           tasks[n].w.input_limit == tasks.front().w.input_limit && !goes_alone(tasks[n], x)) {
      ++n;
    }
    assert(
        std::all_of(tasks.begin(), tasks.end(), [&](const MatmulTask& task) { return task.w.columns == x.columns(); }));
    StripeJob job{};
    job.n_tokens = x.n_tokens();
    if (x.columns() > 0) {
      x.prepare(entry, tasks.front().w.input_limit, static_cast<size_t>(n_threads()), job);
      run_together(tasks.first(n), job);
    }
    tasks = tasks.subspan(n);
  }
}

void matmul(const Matrix& w, MatmulInput& x, const float* bias, float* y, size_t y_stride) {
  const MatmulTask task{w, bias, y, y_stride};
  matmul({&task, 1}, x);
}

}  // namespace mneme::kernels
