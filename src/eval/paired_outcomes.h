#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/// Statistics of trials that pass or fail, of two systems on the same tasks. Sources: McNemar, Psychometrika 12 (1947),
/// in its exact form; Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995); pass@k of arXiv 2107.03374. Used as arXiv
/// 2503.07103 does to judge quantised models of code.
namespace mneme {

/// Two systems on the same trials, and the exact test of McNemar: under the hypothesis that neither is better, each
/// trial on which they differ is a fair coin.
struct PairedOutcomes {
  uint64_t both = 0, only_first = 0, only_second = 0, neither = 0;

  /// From outcomes of the same trials in the same order; the lengths must be equal.
  static PairedOutcomes of(std::span<const uint8_t> first, std::span<const uint8_t> second);

  /// Two-sided: twice the probability of a split at least as uneven, at most 1; 1 when they never differ.
  double p_value() const;
  /// only_first / only_second; nothing when one of them is 0.
  std::optional<double> odds_ratio() const;
};

/// P-values of one family of tests, adjusted so that rejecting those below a level keeps the expected share of false
/// rejections below it (Benjamini-Hochberg); in the order given. Values must lie in [0, 1].
std::vector<double> adjust_false_discoveries(std::span<const double> p_values);

/// Two-sided p-value of the hypothesis that each difference could as well have had the other sign (Fisher's permutation
/// test of pairs, sampled): the share of 9999 random signs, and of those that were seen, under which the sum is at
/// least as far from 0. For trials that belong together, of which each group is one difference.
double sign_flip_p_value(std::span<const double> differences, uint64_t seed);

/// Chance that one of k tries passes, estimated from n tries of which c passed: 1 - C(n - c, k) / C(n, k), without
/// bias. Throws Error(kInvalidArgument) unless 1 <= k <= n and c <= n.
double pass_at_k(uint64_t n, uint64_t c, uint64_t k);

}  // namespace mneme
