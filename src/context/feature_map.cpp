#include "context/feature_map.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "kernels/attention_parts.h"
#include "kernels/vector_ops.h"
#include "tensor/symmetric_eigen.h"

namespace mneme {
namespace {

/// Rows of f32 as kernels want them.
kernels::StoredRows rows_of(const float* data, size_t stride) {
  return {reinterpret_cast<const std::byte*>(data), stride * sizeof(float), DType::kF32};
}

}  // namespace

void FeatureMap::encode(const float* basis, const float* rows, size_t n, std::byte* features) const {
  constexpr size_t kSlice = 256;  // channels of one product
  parallel_for(n, 8, [&](size_t begin, size_t end) {
    std::vector<float> sum(rank * (end - begin), 0.0f), part(sum.size());
    for (size_t c = 0; c < channels; c += kSlice) {
      kernels::score_rows(rows + begin * channels + c, channels, end - begin, rows_of(basis + c, channels), rank,
                          std::min(kSlice, channels - c), part.data(), rank);
      kernels::vector_ops().add(sum.data(), part.data(), sum.size(), sum.data());
    }
    kernels::vector_ops().f32_to_f16(sum.data(), sum.size(), features + begin * row_bytes());
  });
}

void FeatureMap::cut(const float* basis, size_t begin, size_t count, float* out) const {
  for (size_t i = 0; i < rank; ++i) std::copy_n(basis + i * channels + begin, count, out + i * count);
}

void FeatureMap::decode(const float* basis, const std::byte* features, size_t n, size_t begin, size_t count, float* out,
                        size_t out_stride) const {
  std::vector<float> z(n * rank);
  kernels::vector_ops().f16_to_f32(features, z.size(), z.data());
  for (size_t i = 0; i < n; ++i) std::fill_n(out + i * out_stride, count, 0.0f);
  kernels::combine_rows(z.data(), rank, n, rows_of(basis + begin, channels), rank, count, out, out_stride);
}

uint64_t SecondMoments::working_bytes(const FeatureMap& map) {
  // The moments, a copy in double, and what the search for eigenvectors holds.
  const uint64_t square = uint64_t{map.channels} * map.channels;
  return square * (sizeof(float) + 3 * sizeof(double));
}

void SecondMoments::add(const float* rows, size_t n) {
  std::vector<float> turned(channels_ * n);
  for (size_t t = 0; t < n; ++t) {
    for (size_t c = 0; c < channels_; ++c) turned[c * n + t] = rows[t * channels_ + c];
  }
  parallel_for(channels_, 16, [&](size_t begin, size_t end) {
    kernels::combine_rows(turned.data() + begin * n, n, end - begin, rows_of(rows, channels_), n, channels_,
                          moments_.data() + begin * channels_, channels_);
  });
}

void SecondMoments::basis(size_t rank, float* basis) const {
  const size_t n = channels_;
  if (rank >= n) {
    std::fill_n(basis, n * n, 0.0f);
    for (size_t i = 0; i < n; ++i) basis[i * n + i] = 1;
    return;
  }
  std::vector<double> moments(moments_.begin(), moments_.end()), vectors(rank * n);
  dominant_eigenvectors(moments.data(), n, rank, vectors.data());
  std::transform(vectors.begin(), vectors.end(), basis, [](double x) { return static_cast<float>(x); });
}

double SecondMoments::error_of(const float* basis, size_t rank) const {
  double total = 0, kept = 0;
  for (size_t c = 0; c < channels_; ++c) total += static_cast<double>(moments_[c * channels_ + c]);
  std::vector<float> row(channels_);
  for (size_t i = 0; i < rank; ++i) {
    std::fill(row.begin(), row.end(), 0.0f);
    kernels::combine_rows(basis + i * channels_, channels_, 1, rows_of(moments_.data(), channels_), channels_,
                          channels_, row.data(), channels_);
    kept += static_cast<double>(kernels::vector_ops().dot(row.data(), basis + i * channels_, channels_));
  }
  return total > 0 ? std::sqrt(std::max(0.0, 1 - kept / total)) : 0;
}

}  // namespace mneme
