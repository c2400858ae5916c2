#include "train/ops/gemm.h"

#include <oneapi/dnnl/dnnl.hpp>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"

namespace mneme::train {

void gemm(const GemmShape& s, float alpha, const float* a, const float* b, float beta, float* c) {
  const auto status = dnnl_sgemm(s.transpose_a ? 'T' : 'N', s.transpose_b ? 'T' : 'N', static_cast<dnnl_dim_t>(s.m),
                                 static_cast<dnnl_dim_t>(s.n), static_cast<dnnl_dim_t>(s.k), alpha, a,
                                 static_cast<dnnl_dim_t>(s.stride_a), b, static_cast<dnnl_dim_t>(s.stride_b), beta, c,
                                 static_cast<dnnl_dim_t>(s.stride_c));
  if (status != dnnl_success) {
    fail(ErrorCode::kUnsupported, "[gemm] expected a product oneDNN accepts, found status {} for [{}, {}] x [{}, {}]",
         static_cast<int>(status), s.m, s.k, s.k, s.n);
  }
}

void gemm(const GemmShape& s, double alpha, const double* a, const double* b, double beta, double* c) {
  const auto rows = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      double* row = c + i * s.stride_c;
      for (size_t j = 0; j < s.n; ++j) row[j] = beta == 0 ? 0 : beta * row[j];
      for (size_t p = 0; p < s.k; ++p) {
        const double x = alpha * (s.transpose_a ? a[p * s.stride_a + i] : a[i * s.stride_a + p]);
        if (s.transpose_b) {
          for (size_t j = 0; j < s.n; ++j) row[j] += x * b[j * s.stride_b + p];
        } else {
          for (size_t j = 0; j < s.n; ++j) row[j] += x * b[p * s.stride_b + j];
        }
      }
    }
  };
  parallel_for(s.m, 16, rows);
}

namespace {

using dnnl::memory;

/// A product of one shape, compiled once. Creation costs up to a millisecond, so they are kept.
struct Bf16Product {
  dnnl::matmul primitive;
  memory::desc a, b, c;
};

using Key = std::tuple<size_t, size_t, size_t, bool, bool, bool>;

class Bf16Products {
 public:
  static Bf16Products& instance() {
    static Bf16Products products;
    return products;
  }

  const Bf16Product& get(const GemmShape& s, bool accumulate) {
    const std::scoped_lock lock(mutex_);
    const Key key{s.m, s.n, s.k, s.transpose_a, s.transpose_b, accumulate};
    const auto found = products_.find(key);
    if (found != products_.end()) return found->second;
    return products_.emplace(key, make(s, accumulate)).first->second;
  }

  const dnnl::engine& engine() const { return engine_; }

 private:
  Bf16Product make(const GemmShape& s, bool accumulate) const {
    const auto m = static_cast<memory::dim>(s.m), n = static_cast<memory::dim>(s.n), k = static_cast<memory::dim>(s.k);
    using Dims = memory::dims;
    const memory::desc a({m, k}, memory::data_type::bf16, s.transpose_a ? Dims{1, m} : Dims{k, 1});
    const memory::desc b({k, n}, memory::data_type::bf16, s.transpose_b ? Dims{1, k} : Dims{n, 1});
    const memory::desc c({m, n}, memory::data_type::f32, Dims{n, 1});
    dnnl::primitive_attr attributes;
    if (accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attributes, engine_);
    return {dnnl::matmul(description), a, b, c};
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::mutex mutex_;
  std::map<Key, Bf16Product> products_;
};

/// Whether oneDNN has bfloat16 products for this processor; where it has not, its plain loops would run.
bool has_bf16_products() {
  static const bool has = [] {
    const auto level = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
    return (level & needed) == needed;
  }();
  return has;
}

void widen(const uint16_t* x, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = std::bit_cast<float>(uint32_t{x[i]} << 16);
}

/// The same product in f32, operands widened piece by piece: A and B share what they sum over when A is transposed,
/// otherwise B is widened whole.
void gemm_widened(const GemmShape& s, const uint16_t* a, const uint16_t* b, bool accumulate, float* c) {
  constexpr size_t kPiece = 512;
  thread_local std::vector<float> wide_a, wide_b;
  if (s.transpose_a && !s.transpose_b) {
    for (size_t first = 0; first < s.k; first += kPiece) {
      const size_t n = std::min(kPiece, s.k - first);
      wide_a.resize(n * s.m);
      wide_b.resize(n * s.n);
      widen(a + first * s.m, wide_a.size(), wide_a.data());
      widen(b + first * s.n, wide_b.size(), wide_b.data());
      gemm({s.m, s.n, n, true, false, s.m, s.n, s.n}, 1, wide_a.data(), wide_b.data(), accumulate || first > 0 ? 1 : 0, c);
    }
    return;
  }
  wide_b.resize(s.k * s.n);
  widen(b, wide_b.size(), wide_b.data());
  const size_t step = s.transpose_a ? s.m : kPiece;  // columns of a transposed A are not apart
  for (size_t first = 0; first < s.m; first += step) {
    const size_t n = std::min(step, s.m - first);
    wide_a.resize(n * s.k);
    widen(a + first * s.k, wide_a.size(), wide_a.data());
    gemm({n, s.n, s.k, s.transpose_a, s.transpose_b, s.stride_a, s.stride_b, s.n}, 1, wide_a.data(), wide_b.data(),
         accumulate ? 1 : 0, c + first * s.n);
  }
}

}  // namespace

void gemm_bf16(const GemmShape& s, const uint16_t* a, const uint16_t* b, bool accumulate, float* c) {
  if (!has_bf16_products()) return gemm_widened(s, a, b, accumulate, c);
  try {
    Bf16Products& products = Bf16Products::instance();
    const Bf16Product& product = products.get(s, accumulate);
    thread_local dnnl::stream stream(products.engine());
    const dnnl::matmul primitive = product.primitive;
    primitive.execute(stream,
                      {{DNNL_ARG_SRC, memory(product.a, products.engine(), const_cast<uint16_t*>(a))},
                       {DNNL_ARG_WEIGHTS, memory(product.b, products.engine(), const_cast<uint16_t*>(b))},
                       {DNNL_ARG_DST, memory(product.c, products.engine(), c)}});
    stream.wait();
  } catch (const dnnl::error& e) {
    fail(ErrorCode::kUnsupported, "[gemm] expected a bf16 product oneDNN accepts, found '{}' for [{}, {}] x [{}, {}]",
         e.what(), s.m, s.k, s.k, s.n);
  }
}

}  // namespace mneme::train
