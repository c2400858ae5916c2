#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/codebook_search.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/codebook_search.h"
#include "kernels/cpu.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {
namespace {

/// Calls work<dims>().
template <class Work>
HWY_INLINE auto for_dims(size_t dims, const Work& work) {
  switch (dims) {
    case 1:
      return work.template operator()<1>();
    case 2:
      return work.template operator()<2>();
    case 4:
      return work.template operator()<4>();
    default:
      return work.template operator()<8>();
  }
}

template <size_t kDims>
void squares_of(const float* book, size_t n, const float* a, float* out) {
  const F32 d;
  for (size_t k = 0; k < n; k += kLanes) {
    Vec c[kDims];
    MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) c[i] = hn::LoadU(d, book + i * n + k);
    Vec sum = hn::Zero(d);
    MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) {
      Vec row = hn::Mul(hn::Set(d, a[i * kDims]), c[0]);
      MNEME_UNROLL for (size_t j = 1; j < kDims; ++j) row = hn::MulAdd(hn::Set(d, a[i * kDims + j]), c[j], row);
      sum = hn::MulAdd(c[i], row, sum);
    }
    hn::StoreU(sum, d, out + k);
  }
}

template <size_t kDims>
size_t least_of(const float* book, size_t n, const float* constant, const float* slope, float* least) {
  const F32 d;
  const I32 di;
  Vec s[kDims];
  MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) s[i] = hn::Set(d, slope[i]);
  Vec best = hn::Set(d, __builtin_inff());
  auto index = hn::Zero(di), at = hn::Iota(di, 0);
  const auto step = hn::Set(di, static_cast<int32_t>(kLanes));
  for (size_t k = 0; k < n; k += kLanes) {
    Vec value = hn::LoadU(d, constant + k);
    MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) value = hn::MulAdd(hn::LoadU(d, book + i * n + k), s[i], value);
    const auto better = hn::Lt(value, best);
    best = hn::IfThenElse(better, value, best);
    index = hn::IfThenElse(hn::RebindMask(di, better), at, index);
    at = hn::Add(at, step);
  }
  alignas(64) float values[kLanes];
  alignas(64) int32_t indices[kLanes];
  hn::Store(best, d, values);
  hn::Store(index, di, indices);
  size_t winner = 0;
  for (size_t i = 1; i < kLanes; ++i) {
    if (values[i] < values[winner] || (values[i] == values[winner] && indices[i] < indices[winner])) winner = i;
  }
  *least = values[winner];
  return static_cast<size_t>(indices[winner]);
}

template <size_t kDims>
void values_of(const float* book, size_t n, const float* constant, const float* slope, float* out) {
  const F32 d;
  Vec s[kDims];
  MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) s[i] = hn::Set(d, slope[i]);
  for (size_t k = 0; k < n; k += kLanes) {
    Vec value = hn::LoadU(d, constant + k);
    MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) value = hn::MulAdd(hn::LoadU(d, book + i * n + k), s[i], value);
    hn::StoreU(value, d, out + k);
  }
}

template <size_t kDims>
void add_rows_of(const float* rows, size_t stride, const float* factors, size_t n, float* y) {
  const F32 d;
  Vec f[kDims];
  MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) f[i] = hn::Set(d, factors[i]);
  size_t c = 0;
  for (; c + kLanes <= n; c += kLanes) {
    Vec sum = hn::LoadU(d, y + c);
    MNEME_UNROLL for (size_t i = 0; i < kDims; ++i) sum = hn::MulAdd(f[i], hn::LoadU(d, rows + i * stride + c), sum);
    hn::StoreU(sum, d, y + c);
  }
  for (; c < n; ++c) {
    for (size_t i = 0; i < kDims; ++i) y[c] += factors[i] * rows[i * stride + c];
  }
}

void squares(const float* book, size_t dims, size_t n, const float* a, float* out) {
  for_dims(dims, [&]<size_t kDims>() { squares_of<kDims>(book, n, a, out); });
}
size_t least(const float* book, size_t dims, size_t n, const float* constant, const float* slope, float* value) {
  return for_dims(dims, [&]<size_t kDims>() { return least_of<kDims>(book, n, constant, slope, value); });
}
void values(const float* book, size_t dims, size_t n, const float* constant, const float* slope, float* out) {
  for_dims(dims, [&]<size_t kDims>() { values_of<kDims>(book, n, constant, slope, out); });
}
void add_rows(const float* rows, size_t stride, size_t dims, const float* factors, size_t n, float* y) {
  for_dims(dims, [&]<size_t kDims>() { add_rows_of<kDims>(rows, stride, factors, n, y); });
}

constexpr CodebookOps make_table(const char* name) {
  return {.target = name, .squares = squares, .least = least, .values = values, .add_rows = add_rows};
}

}  // namespace
}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::kernels {
namespace {

// The readable definitions.

void scalar_squares(const float* book, size_t dims, size_t n, const float* a, float* out) {
  for (size_t k = 0; k < n; ++k) {
    double sum = 0;
    for (size_t i = 0; i < dims; ++i) {
      for (size_t j = 0; j < dims; ++j) {
        sum += static_cast<double>(book[i * n + k]) * static_cast<double>(a[i * dims + j]) *
               static_cast<double>(book[j * n + k]);
      }
    }
    out[k] = static_cast<float>(sum);
  }
}

size_t scalar_least(const float* book, size_t dims, size_t n, const float* constant, const float* slope, float* least) {
  size_t best = 0;
  for (size_t k = 0; k < n; ++k) {
    float value = constant[k];
    for (size_t i = 0; i < dims; ++i) value += book[i * n + k] * slope[i];
    if (k > 0 && !(value < *least)) continue;
    best = k;
    *least = value;
  }
  return best;
}

void scalar_values(const float* book, size_t dims, size_t n, const float* constant, const float* slope, float* out) {
  for (size_t k = 0; k < n; ++k) {
    out[k] = constant[k];
    for (size_t i = 0; i < dims; ++i) out[k] += book[i * n + k] * slope[i];
  }
}

void scalar_add_rows(const float* rows, size_t stride, size_t dims, const float* factors, size_t n, float* y) {
  for (size_t i = 0; i < dims; ++i) {
    for (size_t c = 0; c < n; ++c) y[c] += factors[i] * rows[i * stride + c];
  }
}

}  // namespace

const CodebookOps& codebook_ops() {
  static constexpr CodebookOps kScalarTable = {.target = "scalar",
                                               .squares = scalar_squares,
                                               .least = scalar_least,
                                               .values = scalar_values,
                                               .add_rows = scalar_add_rows};
  [[maybe_unused]] const Target target = active_target();
#if HWY_TARGETS & HWY_AVX2
  static constexpr CodebookOps kAvx2Table = N_AVX2::make_table("avx2");
  if (target == Target::kAvx2) return kAvx2Table;
#endif
#if HWY_TARGETS & HWY_AVX3
  static constexpr CodebookOps kAvx512Table = N_AVX3::make_table("avx512");
  if (target == Target::kAvx512) return kAvx512Table;
#endif
#if HWY_TARGETS & HWY_NEON
  static constexpr CodebookOps kNeonTable = N_NEON::make_table("neon");
  if (target == Target::kNeon) return kNeonTable;
#endif
  return kScalarTable;
}

}  // namespace mneme::kernels
#endif  // HWY_ONCE
