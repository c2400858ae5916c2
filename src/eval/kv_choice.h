#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/kv_quality.h"

namespace mneme {

/// How much quality may be given for bytes.
struct KvBound {
  double divergence = 0.02;    ///< Mean KL divergence from f16 in nats a token.
  double same_choice = 0.95;   ///< Share of tokens with the same most probable successor.
};

struct KvChoice {
  std::string policy;               ///< The one with the fewest bytes inside the bound; "f16" when none is.
  std::string reason;               ///< One line with the numbers.
  std::vector<KvQuality> measured;  ///< All candidates, in order of bytes.
};

/// Policies that are candidates for `--kv auto`.
std::vector<KvPolicy> kv_candidates();

/// Measures the candidates on the text and chooses. What measure_kv_quality() throws.
KvChoice choose_kv(Engine& engine, std::span<const TokenId> tokens, const KvBound& bound, const KvQualityOptions& options,
                   const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

/// The choice among measured candidates.
KvChoice choose_among(std::vector<KvQuality> measured, const KvBound& bound);

}  // namespace mneme
