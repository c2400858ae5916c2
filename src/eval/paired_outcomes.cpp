#include "eval/paired_outcomes.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/philox.h"

namespace mneme {
namespace {

/// log of n! by the gamma function; lgamma() itself writes a global.
double log_factorial(uint64_t n) {
  int sign = 0;
  return lgamma_r(static_cast<double>(n) + 1, &sign);
}

}  // namespace

PairedOutcomes PairedOutcomes::of(std::span<const uint8_t> first, std::span<const uint8_t> second) {
  assert(first.size() == second.size());
  PairedOutcomes out;
  for (size_t i = 0; i < first.size(); ++i) {
    const bool a = first[i] != 0, b = second[i] != 0;
    ++(a && b ? out.both : a ? out.only_first : b ? out.only_second : out.neither);
  }
  return out;
}

double PairedOutcomes::p_value() const {
  const uint64_t n = only_first + only_second;
  double tail = 0;
  for (uint64_t i = 0; i <= std::min(only_first, only_second); ++i) {
    tail +=
        std::exp(log_factorial(n) - log_factorial(i) - log_factorial(n - i) - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

std::optional<double> PairedOutcomes::odds_ratio() const {
  if (only_first == 0 || only_second == 0) return std::nullopt;
  return static_cast<double>(only_first) / static_cast<double>(only_second);
}

std::vector<double> adjust_false_discoveries(std::span<const double> p_values) {
  const size_t n = p_values.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> out(n);
  double least = 1;
  for (size_t rank = n; rank > 0; --rank) {
    const size_t i = order[rank - 1];
    assert(p_values[i] >= 0 && p_values[i] <= 1);
    least = std::min(least, p_values[i] * static_cast<double>(n) / static_cast<double>(rank));
    out[i] = least;
  }
  return out;
}

double sign_flip_p_value(std::span<const double> differences, uint64_t seed) {
  constexpr int kDraws = 9999;
  const double seen = std::abs(std::accumulate(differences.begin(), differences.end(), 0.0));
  PhiloxStream random(seed);
  int as_far = 1;
  for (int i = 0; i < kDraws; ++i) {
    double sum = 0;
    for (size_t j = 0; j < differences.size(); j += 32) {
      uint32_t signs = random.next_u32();
      for (size_t k = j; k < std::min(differences.size(), j + 32); ++k, signs >>= 1) {
        sum += (signs & 1) != 0 ? differences[k] : -differences[k];
      }
    }
    as_far += std::abs(sum) >= seen * (1 - 1e-12) ? 1 : 0;
  }
  return static_cast<double>(as_far) / (kDraws + 1);
}

double pass_at_k(uint64_t n, uint64_t c, uint64_t k) {
  if (k < 1 || k > n || c > n) {
    fail(ErrorCode::kInvalidArgument,
         "[pass@k] expected 1 <= k <= n tries and at most n that passed, found n {}, k {}, {} passed", n, k, c);
  }
  if (n - c < k) return 1;  // any k tries have one that passed
  double all_fail = 1;
  for (uint64_t i = n - c + 1; i <= n; ++i) all_fail *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - all_fail;
}

}  // namespace mneme
