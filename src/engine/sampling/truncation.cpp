#include "engine/sampling/truncation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace mneme {
namespace {

/// How many candidates are ranked at first, and by which factor more when that was not enough. Most distributions end
/// within the first step; the sort of a flat one stays O(n log n).
constexpr size_t kFirstRanked = 64;
constexpr size_t kRankGrowth = 8;

/// Length of the shortest prefix of `ranked` whose p sum to `target`, at least min_keep; nothing when the list is too short
/// to tell. p of an item is exp(logit - max) / total.
size_t nucleus(std::span<const Candidate> ranked, float max, double total, float target, size_t min_keep) {
  double sum = 0;
  for (size_t i = 0; i < ranked.size(); ++i) {
    sum += exp_nonpositive(ranked[i].logit - max) / total;
    if (sum >= target && i + 1 >= min_keep) return i + 1;
  }
  return 0;
}

}  // namespace

void apply_top_k(Candidates& candidates, size_t k, size_t min_keep) {
  candidates.keep_top(std::max<size_t>({k, min_keep, 1}));
}

void apply_top_p(Candidates& candidates, float top_p, size_t min_keep) {
  const float max = candidates.max_logit();
  const double total = candidates.sum_exp();
  if (candidates.is_dense()) {
    const std::span<const float> logits = candidates.logits();
    std::vector<Candidate> best;
    size_t keep = 0;
    for (size_t n = kFirstRanked; keep == 0 && n < logits.size(); n *= kRankGrowth) {
      dense::top(logits, n, best);
      keep = nucleus(best, max, total, top_p, min_keep);
    }
    if (keep > 0) {
      best.resize(keep);
      candidates.assign(best, true);
      return;
    }
  }
  for (size_t n = kFirstRanked;; n *= kRankGrowth) {
    const std::span<const Candidate> ranked = candidates.rank(n);
    const size_t keep = nucleus(ranked.first(std::min(n, ranked.size())), max, total, top_p, min_keep);
    if (keep > 0) return candidates.keep_first(keep);
    if (n >= ranked.size()) return;
  }
}

void apply_min_p(Candidates& candidates, float min_p, size_t min_keep) {
  float threshold = candidates.max_logit() + std::log(min_p);
  if (min_keep > 1) {
    const std::span<const Candidate> ranked = candidates.rank(min_keep);
    threshold = std::min(threshold, ranked[std::min(min_keep, ranked.size()) - 1].logit);
  }
  candidates.keep_at_least(threshold);
}

void apply_typical(Candidates& candidates, float typical_p, size_t min_keep) {
  const std::span<const Candidate> items = candidates.normalize();
  struct Scored {
    double distance;
    Candidate candidate;
  };
  std::vector<Scored> scored;
  scored.reserve(items.size());
  double entropy = 0;
  for (const Candidate& c : items) entropy -= c.p > 0 ? c.p * std::log(c.p) : 0.0f;
  for (const Candidate& c : items) {
    scored.push_back({c.p > 0 ? std::abs(-std::log(c.p) - entropy) : std::numeric_limits<double>::infinity(), c});
  }
  const auto closer = [](const Scored& a, const Scored& b) {
    return a.distance != b.distance ? a.distance < b.distance : ranks_before(a.candidate, b.candidate);
  };
  double sum = 0;
  std::vector<Candidate> kept;
  for (size_t sorted = 0, n = kFirstRanked; sorted < scored.size(); n *= kRankGrowth) {
    n = std::min(n, scored.size());
    const auto begin = scored.begin() + static_cast<std::ptrdiff_t>(sorted);
    std::partial_sort(begin, scored.begin() + static_cast<std::ptrdiff_t>(n), scored.end(), closer);
    for (; sorted < n; ++sorted) {
      kept.push_back(scored[sorted].candidate);
      sum += kept.back().p;
      if (sum > typical_p && kept.size() >= min_keep) return candidates.assign(kept, false);
    }
  }
}

void apply_top_n_sigma(Candidates& candidates, float n) {
  const float max = candidates.max_logit();
  double deviation = 0;
  if (candidates.is_dense()) {
    deviation = dense::moments(candidates.logits()).deviation;
  } else {
    std::vector<float> logits;
    for (const Candidate& c : candidates.items()) logits.push_back(c.logit);
    deviation = dense::moments(logits).deviation;
  }
  candidates.keep_at_least(static_cast<float>(max - n * deviation));
}

void apply_xtc(Candidates& candidates, float probability, float threshold, size_t min_keep, PhiloxStream& random) {
  if (random.next_double() >= probability) return;
  const Candidate* least = nullptr;
  size_t reached = 0;
  for (const Candidate& c : candidates.normalize()) {
    if (c.p < threshold) continue;
    ++reached;
    if (least == nullptr || ranks_before(*least, c)) least = &c;
  }
  if (reached < 2 || candidates.size() - (reached - 1) < min_keep) return;
  const TokenId stays = least->id;
  candidates.keep_if([&](const Candidate& c) { return c.p < threshold || c.id == stays; });
}

}  // namespace mneme
