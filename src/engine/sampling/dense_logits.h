#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// A token that may still be chosen.
struct Candidate {
  TokenId id = 0;
  float logit = 0;
  float p = 0;  ///< softmax over the list it is in; valid after Candidates::normalize() only
};

/// Order of candidates everywhere: larger logit first, then lower id, so that ties never depend on the selection method.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

inline constexpr float kBanned = -std::numeric_limits<float>::infinity();

/// exp(x) for x <= 0, within 3e-7 relative; 0 below -87 and for NaN. The limit is tested on the bits, where more negative
/// numbers are larger, since compilers turn loops over this into vector code only without comparisons of floats.
inline float exp_nonpositive(float x) {
  constexpr uint32_t kLimit = std::bit_cast<uint32_t>(-87.0f);
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t keep = 0u - static_cast<uint32_t>(bits <= kLimit);
  x = std::bit_cast<float>(std::min(bits, kLimit));
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum rounds x / ln 2 to an integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float y = 1.0f / 5040;
  y = y * r + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) - 0x4B400000u + 127u) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(y * std::bit_cast<float>(exponent)) & keep);
}

/// Single passes over the logits of a whole vocabulary. They avoid building or sorting a list of all tokens, which is what
/// makes sampling from 10^5 and more tokens cheap. Entries at -inf (banned) are skipped.
namespace dense {

struct Maximum {
  float logit;
  TokenId id;  ///< lowest id with this logit
};

/// The largest logit. Throws Error(kInvalidArgument) that names the token for NaN or +inf, and when no entry is finite.
Maximum maximum(std::span<const float> logits);

/// Sum of exp(logit - max), the denominator of softmax. `max` is the largest logit.
double sum_exp(std::span<const float> logits, float max);

/// Draws a token from softmax(logits): the first one at which the cumulated probability passes `uniform` in [0, 1).
struct Draw {
  TokenId id;
  float p;
};
Draw draw(std::span<const float> logits, float max, double uniform);

struct Moments {
  double mean, deviation;  ///< deviation: population standard deviation
};
/// Over the entries that are not banned (at least one).
Moments moments(std::span<const float> logits);

/// Replaces `out` by the n best-ranked tokens in rank order (fewer when fewer are not banned).
void top(std::span<const float> logits, size_t n, std::vector<Candidate>& out);

/// Replaces `out` by the tokens with logit >= threshold, in order of id.
void at_least(std::span<const float> logits, float threshold, std::vector<Candidate>& out);

}  // namespace dense
}  // namespace mneme
