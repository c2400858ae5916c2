#include "eval/precision_claims.h"

#include <algorithm>
#include <cmath>

#include "eval/precision_law.h"

namespace mneme {
namespace {

constexpr const char* kSource = "arXiv 2501.02423";
constexpr double kLog128 = 7;

/// Largest relative difference from the paper's critical data sizes of a model of 1B parameters.
ClaimMeasurement critical_data_error() {
  const struct { double exponent, mantissa, tokens; } paper[] = {{8, 7, 1730e12}, {4, 3, 27e12}, {2, 1, 0.4e12}};
  double worst = 0;
  for (const auto& p : paper) {
    worst = std::max(
        worst, std::abs(critical_tokens(kPublishedLaw, {1e9, 0, p.exponent, p.mantissa, kLog128}) / p.tokens - 1));
  }
  return {worst, "1B parameters, 128 elements a scale, BF16, E4M3 and E2M1 against 1730T, 27T and 0.4T tokens"};
}

double least_bits() {
  return search_best_plan(kPublishedLaw, 1e21, kLog128).bits;
}
double most_bits() {
  return search_best_plan(kPublishedLaw, 1e31, kLog128).bits;
}

}  // namespace

std::vector<Claim> precision_claims() {
  return {
      {"fp-scaling", kSource, "critical data sizes follow from the published constants", "relative error",
       "1730T, 27T, 0.4T", 0.02, true, critical_data_error},
      {"fp-scaling", kSource, "the best precision at a compute of 1e21 is at least 4 bits", "bits", "4", 4, false,
       [] {
         return ClaimMeasurement{least_bits(), "numeric search over bits, size and data with the published constants"};
       }},
      {"fp-scaling", kSource, "the best precision at a compute of 1e31 is at most 8 bits", "bits", "8", 8, true,
       [] {
         return ClaimMeasurement{most_bits(), "numeric search over bits, size and data with the published constants"};
       }},
  };
}

}  // namespace mneme
