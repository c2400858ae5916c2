#include "recall/index/balanced_clustering.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/vector_distance.h"
#include "kernels/vector_ops.h"

namespace mneme::ann {
namespace {

/// Rows of the whole set by their numbers.
struct Subset {
  std::span<const float> rows;
  size_t dimension;
  std::span<uint32_t> members;
  const float* row(size_t i) const { return rows.data() + members[i] * dimension; }
  size_t size() const { return members.size(); }
};

struct Nearest {
  uint32_t cluster;
  float distance;
};

Nearest nearest_centre(const float* x, std::span<const float> centres, size_t d, std::span<const float> penalty = {}) {
  const auto l2 = kernels::distance_ops().l2_f32;
  Nearest best{0, 0};
  float least = std::numeric_limits<float>::infinity();
  for (uint32_t c = 0; c * d < centres.size(); ++c) {
    const float distance = l2(x, centres.data() + c * d, d);
    const float cost = distance + (penalty.empty() ? 0 : penalty[c]);
    if (cost < least) {
      least = cost;
      best = {c, distance};
    }
  }
  return best;
}

void shuffle(std::span<uint32_t> values, PhiloxStream& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.next_below(i)]);
}

/// Balanced k-means on the first `sample` members; leaves centres [k, d].
std::vector<float> sample_centres(const Subset& set, size_t k, const ClusteringOptions& options, PhiloxStream& random) {
  const size_t d = set.dimension, n = std::min(set.size(), std::max(options.sample, 2 * k));
  const auto& ops = kernels::vector_ops();
  // Begin with rows of the sample, each far from those before it: k-means++ by draws among a few candidates.
  std::vector<float> centres;
  std::vector<float> gap(n, std::numeric_limits<float>::infinity());
  for (size_t c = 0; c < k; ++c) {
    size_t chosen = random.next_below(n);
    for (int draw = 0; c > 0 && draw < 3; ++draw) {
      const size_t other = random.next_below(n);
      if (gap[other] > gap[chosen]) chosen = other;
    }
    centres.insert(centres.end(), set.row(chosen), set.row(chosen) + d);
    for (size_t i = 0; i < n; ++i) {
      gap[i] = std::min(gap[i], kernels::distance_ops().l2_f32(set.row(i), centres.data() + c * d, d));
    }
  }
  std::vector<float> sums(k * d), penalty(k);
  std::vector<uint32_t> counts(k), before(n, ~0u);
  double mean = 0;
  for (float g : gap) mean += g;
  mean /= static_cast<double>(n);
  for (size_t iteration = 0; iteration < options.iterations; ++iteration) {
    const float lambda = static_cast<float>(options.balance * mean * static_cast<double>(k) / static_cast<double>(n));
    std::fill(sums.begin(), sums.end(), 0.0f);
    std::fill(penalty.begin(), penalty.end(), 0.0f);
    std::fill(counts.begin(), counts.end(), 0u);
    size_t moved = 0;
    mean = 0;
    for (size_t i = 0; i < n; ++i) {
      const Nearest to = nearest_centre(set.row(i), centres, d, penalty);
      mean += to.distance;
      penalty[to.cluster] += lambda;
      ++counts[to.cluster];
      float* sum = sums.data() + to.cluster * d;
      ops.add(sum, set.row(i), d, sum);
      moved += before[i] != to.cluster ? 1 : 0;
      before[i] = to.cluster;
    }
    mean /= static_cast<double>(n);
    if (moved * 100 < n) break;
    for (size_t c = 0; c < k; ++c) {
      float* centre = centres.data() + c * d;
      if (counts[c] > 0) {
        ops.scale(sums.data() + c * d, 1.0f / static_cast<float>(counts[c]), d, centre);
      } else {
        std::copy_n(set.row(random.next_below(n)), d, centre);
      }
    }
  }
  return centres;
}

/// Mean of the members [begin, end).
std::vector<float> mean_of(const Subset& set, size_t begin, size_t end) {
  std::vector<double> sum(set.dimension, 0.0);
  for (size_t i = begin; i < end; ++i) {
    for (size_t j = 0; j < set.dimension; ++j) sum[j] += set.row(i)[j];
  }
  std::vector<float> mean(set.dimension);
  for (size_t j = 0; j < mean.size(); ++j) mean[j] = static_cast<float>(sum[j] / static_cast<double>(end - begin));
  return mean;
}

/// Assigns all members to the nearest centre, orders them by cluster and replaces the centres by means. Returns the
/// ends of the clusters among the members; empty clusters are dropped.
std::vector<size_t> partition(const Subset& set, std::vector<float>& centres) {
  const size_t d = set.dimension, n = set.size(), k = centres.size() / d;
  std::vector<uint32_t> cluster(n);
  parallel_for(n, 2048, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) cluster[i] = nearest_centre(set.row(i), centres, d).cluster;
  });
  std::vector<size_t> at(k + 1, 0);
  for (uint32_t c : cluster) ++at[c + 1];
  std::partial_sum(at.begin(), at.end(), at.begin());
  std::vector<uint32_t> ordered(n);
  std::vector<size_t> next(at.begin(), at.end() - 1);
  for (size_t i = 0; i < n; ++i) ordered[next[cluster[i]]++] = set.members[i];
  std::copy(ordered.begin(), ordered.end(), set.members.begin());
  std::vector<size_t> ends;
  std::vector<float> means;
  for (size_t c = 0; c < k; ++c) {
    if (at[c] == at[c + 1]) continue;
    ends.push_back(at[c + 1]);
    const std::vector<float> mean = mean_of(set, at[c], at[c + 1]);
    means.insert(means.end(), mean.begin(), mean.end());
  }
  centres = std::move(means);
  return ends;
}

/// A cluster that may still be split: members [begin, end) and their mean.
struct Cluster {
  size_t begin, end;
  std::vector<float> mean;
};

}  // namespace

std::vector<float> balanced_centres(std::span<const float> rows, size_t dimension, const ClusteringOptions& options) {
  const size_t n = rows.size() / dimension;
  std::vector<float> result;
  if (n == 0) return result;
  std::vector<uint32_t> members(n);
  std::iota(members.begin(), members.end(), 0u);
  PhiloxStream order(options.seed);
  shuffle(members, order);
  const Subset all{rows, dimension, members};
  std::vector<Cluster> frontier{{0, n, mean_of(all, 0, n)}};
  while (!frontier.empty()) {
    std::vector<std::vector<Cluster>> parts(frontier.size());
    const auto split = [&](size_t i) {
      Cluster& cluster = frontier[i];
      const size_t size = cluster.end - cluster.begin;
      if (4 * size <= 7 * options.leaf) return;
      const Subset set{rows, dimension, std::span(members).subspan(cluster.begin, size)};
      PhiloxStream random(options.seed, cluster.begin, size);
      const size_t k = std::min(options.branches, std::max<size_t>(2, size / options.leaf));
      std::vector<float> centres = sample_centres(set, k, options, random);
      const std::vector<size_t> ends = partition(set, centres);
      if (ends.size() < 2) return;  // all rows equal
      for (size_t c = 0, begin = 0; c < ends.size(); begin = ends[c++]) {
        parts[i].push_back({cluster.begin + begin,
                            cluster.begin + ends[c],
                            {centres.begin() + static_cast<ptrdiff_t>(c * dimension),
                             centres.begin() + static_cast<ptrdiff_t>((c + 1) * dimension)}});
      }
    };
    // A few large clusters share the threads inside; many small ones each have one.
    if (frontier.size() < 8) {
      for (size_t i = 0; i < frontier.size(); ++i) split(i);
    } else {
      parallel_dynamic(frontier.size(), split);
    }
    std::vector<Cluster> next;
    for (size_t i = 0; i < frontier.size(); ++i) {
      if (parts[i].empty()) result.insert(result.end(), frontier[i].mean.begin(), frontier[i].mean.end());
      std::move(parts[i].begin(), parts[i].end(), std::back_inserter(next));
    }
    frontier = std::move(next);
  }
  return result;
}

bool split_in_two(std::span<const float> rows, size_t dimension, uint64_t seed, std::span<float> centres,
                  std::span<uint8_t> part) {
  const size_t n = rows.size() / dimension;
  std::vector<uint32_t> members(n);
  std::iota(members.begin(), members.end(), 0u);
  const Subset set{rows, dimension, members};
  PhiloxStream random(seed, n);
  ClusteringOptions options;
  options.sample = n;
  std::vector<float> two = sample_centres(set, 2, options, random);
  // Order by which centre is nearer, and cut where the sign changes, but leave a quarter on each side.
  std::vector<float> lean(n);
  const auto l2 = kernels::distance_ops().l2_f32;
  for (size_t i = 0; i < n; ++i)
    lean[i] = l2(set.row(i), two.data(), dimension) - l2(set.row(i), two.data() + dimension, dimension);
  std::sort(members.begin(), members.end(),
            [&](uint32_t a, uint32_t b) { return lean[a] < lean[b] || (lean[a] == lean[b] && a < b); });
  if (n < 2 || lean[members.front()] == lean[members.back()]) return false;
  size_t cut = 0;
  while (cut < n && lean[members[cut]] < 0) ++cut;
  cut = std::clamp(cut, std::max<size_t>(1, n / 4), n - std::max<size_t>(1, n / 4));
  std::vector<double> sums(2 * dimension, 0.0);
  for (size_t i = 0; i < n; ++i) {
    const size_t side = i < cut ? 0 : 1;
    part[members[i]] = static_cast<uint8_t>(side);
    for (size_t j = 0; j < dimension; ++j) sums[side * dimension + j] += set.row(i)[j];
  }
  for (size_t j = 0; j < dimension; ++j) {
    centres[j] = static_cast<float>(sums[j] / static_cast<double>(cut));
    centres[dimension + j] = static_cast<float>(sums[dimension + j] / static_cast<double>(n - cut));
  }
  return true;
}

}  // namespace mneme::ann
