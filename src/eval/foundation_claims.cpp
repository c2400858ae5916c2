#include "eval/foundation_claims.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "kernels/attention.h"

namespace mneme {
namespace {

/// Largest difference between attention in tiles with running maxima and softmax computed whole in double.
ClaimMeasurement tiled_attention_error() {
  constexpr size_t kKeys = 4096, kDim = 64, kRows = 4;
  PhiloxStream random(5);
  std::vector<float> q(kRows * kDim), k(kKeys * kDim), v(kKeys * kDim);
  for (auto* values : {&q, &k, &v}) {
    for (float& x : *values) x = random.next_normal();
  }
  std::vector<uint32_t> first(kRows, 0), last(kRows, kKeys);
  std::vector<float> max(kRows, -std::numeric_limits<float>::infinity()), sum(kRows), out(kRows * kDim);
  const float scale = 1 / std::sqrt(static_cast<float>(kDim));
  const kernels::AttentionTriple triple{max.data(), sum.data(), out.data(), kDim};
  kernels::attend({q.data(), kRows, kDim, kDim, kDim, scale, 0},
                  {reinterpret_cast<const std::byte*>(k.data()), reinterpret_cast<const std::byte*>(v.data()),
                   kDim * sizeof(float), kDim * sizeof(float), DType::kF32, first.data(), last.data()},
                  triple);
  kernels::finish_attention(triple, kRows, kDim, nullptr);
  double worst = 0;
  for (size_t r = 0; r < kRows; ++r) {
    std::vector<double> p(kKeys), want(kDim);
    double total = 0;
    for (size_t j = 0; j < kKeys; ++j) {
      double dot = 0;
      for (size_t d = 0; d < kDim; ++d) dot += static_cast<double>(q[r * kDim + d]) * static_cast<double>(k[j * kDim + d]);
      total += p[j] = std::exp(dot * static_cast<double>(scale));
    }
    for (size_t j = 0; j < kKeys; ++j) {
      for (size_t d = 0; d < kDim; ++d) want[d] += p[j] / total * static_cast<double>(v[j * kDim + d]);
    }
    for (size_t d = 0; d < kDim; ++d) worst = std::max(worst, std::abs(want[d] - static_cast<double>(out[r * kDim + d])));
  }
  return {worst, "4 queries, 4096 keys, 64 dimensions, f32, values of size 1"};
}

}  // namespace

std::vector<Claim> foundation_claims() {
  return {
      {"flashattention", "arXiv 2205.14135", "Attention in tiles with a running softmax is exact", "largest difference",
       "exact, up to rounding", 1e-5, true, tiled_attention_error},
  };
}

}  // namespace mneme
