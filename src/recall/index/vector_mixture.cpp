#include "recall/index/vector_mixture.h"

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "base/philox.h"

namespace mneme::ann {

VectorMixture::VectorMixture(const MixtureOptions& options)
    : options_(options),
      centres_(options.modes * options.dimension),
      deviations_(options.modes * options.dimension),
      up_to_(options.modes) {
  const size_t d = options.dimension;
  PhiloxStream random(options.seed, 1);
  double sum = 0;
  std::vector<size_t> rank(d);
  for (size_t mode = 0; mode < options.modes; ++mode) {
    up_to_[mode] = sum += 1 / (1 + 0.05 * static_cast<double>(mode));
    const float spread = options.least_spread + (options.most_spread - options.least_spread) * random.next_float();
    std::iota(rank.begin(), rank.end(), size_t{0});
    for (size_t i = d; i > 1; --i) std::swap(rank[i - 1], rank[random.next_below(i)]);
    for (size_t i = 0; i < d; ++i) {
      centres_[mode * d + i] = options.centre_scale * random.next_normal();
      const float fall = options.decay > 0 ? 1 + static_cast<float>(rank[i]) / options.decay : 1;
      deviations_[mode * d + i] = spread / fall;
    }
  }
}

void VectorMixture::rows(uint64_t first, std::span<float> out) const {
  const size_t d = options_.dimension;
  parallel_for(out.size() / d, 256, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      PhiloxStream random(options_.seed, 2 + first + r);
      const double at = random.next_double() * up_to_.back();
      const auto mode = static_cast<size_t>(std::upper_bound(up_to_.begin(), up_to_.end() - 1, at) - up_to_.begin());
      for (size_t i = 0; i < d; ++i) {
        out[r * d + i] = centres_[mode * d + i] + deviations_[mode * d + i] * random.next_normal();
      }
    }
  });
}

}  // namespace mneme::ann
