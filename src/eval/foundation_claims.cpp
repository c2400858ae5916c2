#include "eval/foundation_claims.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "context/dense_kv.h"
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

/// Part of the committed memory of keys and values that holds tokens, over contexts of many lengths.
ClaimMeasurement context_utilisation() {
  const KvShape shape{8, 64, 64, 0};
  PhiloxStream random(6);
  uint64_t used = 0, committed = 0;
  for (int i = 0; i < 64; ++i) {
    const uint64_t tokens = 256 + random.next_below(16 * 1024);
    used += tokens * 2 * shape.n_kv_heads * shape.key_dim * 2;
    committed += DenseKv::spec(shape, DType::kF16, 32768, 512).bytes(tokens);
  }
  return {static_cast<double>(used) / static_cast<double>(committed),
          "64 contexts of 256 to 16640 tokens, 8 heads of 64, f16; the reserved maximum of 32768 would leave 0.26"};
}

}  // namespace

std::vector<Claim> foundation_claims() {
  return {
      {"flashattention", "arXiv 2205.14135", "Attention in tiles with a running softmax is exact", "largest difference",
       "exact, up to rounding", 1e-5, true, tiled_attention_error},
      {"vattention", "arXiv 2405.04437", "A contiguous context that grows by pages wastes almost no memory",
       "of the memory holds tokens", "96 % or more in use (PagedAttention, arXiv 2309.06180, the baseline it keeps up with)", 0.96,
       false, context_utilisation},
  };
}

}  // namespace mneme
