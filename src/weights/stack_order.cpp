#include "weights/stack_order.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/philox.h"

namespace mneme::bitstack {
namespace {

/// What counts of a block among those of its level: its gain, or the next level's when it has none.
struct Rank {
  bool measured;
  double gain;

  Rank(const StackedGains& matrix, uint32_t level) {
    const auto gain_of = [&](size_t i) {
      return i < matrix.gains.size() ? matrix.gains[i] : std::numeric_limits<double>::quiet_NaN();
    };
    measured = !std::isnan(gain_of(level));
    const double next = gain_of(level + 1);
    gain = measured ? gain_of(level) : std::isnan(next) ? -std::numeric_limits<double>::infinity() : next;
  }
  bool before(const Rank& other) const { return measured != other.measured ? measured : gain > other.gain; }
};

std::vector<BlockId> greedy(std::span<const StackedGains> matrices) {
  std::vector<BlockId> out;
  std::vector<uint32_t> next(matrices.size(), 0);
  for (uint32_t m = 0; m < matrices.size(); ++m) {
    if (!matrices[m].gains.empty()) out.push_back({m, next[m]++});
  }
  const auto worth = [&](size_t m) {
    const Rank rank(matrices[m], next[m]);
    return rank.measured ? rank.gain / static_cast<double>(matrices[m].block_bytes)
                         : -std::numeric_limits<double>::infinity();
  };
  for (;;) {
    std::optional<uint32_t> best;
    for (uint32_t m = 0; m < matrices.size(); ++m) {
      if (next[m] < matrices[m].gains.size() && (!best || worth(m) > worth(*best))) best = m;
    }
    if (!best) return out;
    out.push_back({*best, next[*best]++});
  }
}

}  // namespace

std::optional<StackOrder> find_stack_order(std::string_view name) {
  if (name == "average") return StackOrder::kAverage;
  if (name == "greedy") return StackOrder::kGreedy;
  if (name == "random") return StackOrder::kRandom;
  return std::nullopt;
}

std::vector<BlockId> order_blocks(StackOrder order, std::span<const StackedGains> matrices, uint64_t seed) {
  if (order == StackOrder::kGreedy) return greedy(matrices);
  std::vector<BlockId> out;
  size_t most = 0;
  for (const StackedGains& matrix : matrices) most = std::max(most, matrix.gains.size());
  for (uint32_t level = 0; level < most; ++level) {
    const auto first = static_cast<long>(out.size());
    for (uint32_t m = 0; m < matrices.size(); ++m) {
      if (level < matrices[m].gains.size()) out.push_back({m, level});
    }
    if (level == 0) continue;
    if (order == StackOrder::kRandom) {
      PhiloxStream random(seed, level);
      for (size_t i = out.size(); i > static_cast<size_t>(first) + 1; --i) {
        std::swap(out[i - 1], out[static_cast<size_t>(first) + random.next_below(i - static_cast<size_t>(first))]);
      }
    } else {
      std::stable_sort(out.begin() + first, out.end(), [&](const BlockId& a, const BlockId& b) {
        return Rank(matrices[a.matrix], level).before(Rank(matrices[b.matrix], level));
      });
    }
  }
  return out;
}

}  // namespace mneme::bitstack
