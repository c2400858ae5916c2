#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// The steps of the sampler chain that can be reordered. The other parts have fixed places: logit bias first, then these,
/// then adaptive-p, then the draw.
enum class SamplerKind {
  kPenalties,
  kDry,
  kTopNSigma,
  kTopK,
  kTypical,
  kTopP,
  kMinP,
  kXtc,
  kTemperature,
  kInfill,
};

/// Name in requests and options: "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc",
/// "temperature", "infill".
std::string_view sampler_name(SamplerKind kind);
/// Inverse of sampler_name. Throws Error(kInvalidArgument) that lists the names.
SamplerKind parse_sampler_name(std::string_view name);

/// How a grammar and the sampler work together.
enum class ConstraintMode {
  /// Sample freely; only when the winner is not allowed, mask and sample again. Cheap, and nearly always one test.
  kWinnerFirst,
  /// Mask first: the exact distribution under the condition that the grammar holds.
  kExact,
};

/// All parameters of sampling, with the defaults that users of llama.cpp (August 2026) know.
struct SamplingOptions {
  /// Seed of the request's own random stream; without one it comes from the system.
  std::optional<uint64_t> seed;
  /// Order of the chain; a step that is not listed is not done.
  std::vector<SamplerKind> samplers = {SamplerKind::kPenalties, SamplerKind::kDry,   SamplerKind::kTopNSigma,
                                       SamplerKind::kTopK,      SamplerKind::kTypical, SamplerKind::kTopP,
                                       SamplerKind::kMinP,      SamplerKind::kXtc,   SamplerKind::kTemperature};
  /// Truncating steps keep at least this many candidates.
  size_t min_keep = 0;

  /// Added to the logits; -inf bans the token.
  std::vector<std::pair<TokenId, float>> logit_bias;
  /// Bans every token that ends the answer.
  bool ignore_end_of_generation = false;

  int penalty_last_n = 64;         ///< Window of the three penalties in tokens: 0 off, -1 everything.
  float repeat_penalty = 1.0f;     ///< Divides positive logits, multiplies others; 1 off.
  float frequency_penalty = 0.0f;  ///< Subtracted once per occurrence.
  float presence_penalty = 0.0f;   ///< Subtracted once when it occurs.

  float dry_multiplier = 0.0f;  ///< 0 off.
  float dry_base = 1.75f;
  int dry_allowed_length = 2;  ///< Longest repetition without penalty, in tokens.
  int dry_last_n = 64;         ///< Window in tokens: 0 off, -1 everything.
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};

  float top_n_sigma = -1.0f;      ///< Negative: off.
  int top_k = 40;                 ///< 0 or less: off.
  float typical_p = 1.0f;         ///< 1: off.
  float top_p = 0.95f;            ///< 1: off.
  float min_p = 0.05f;            ///< 0: off.
  float xtc_probability = 0.0f;   ///< 0: off.
  float xtc_threshold = 0.1f;     ///< Above 0.5: off.
  float temperature = 0.8f;       ///< 0 or less: greedy, the best token, lowest id on ties.
  float dynatemp_range = 0.0f;    ///< 0: off.
  float dynatemp_exponent = 1.0f;

  int mirostat = 0;  ///< 0 off; 1 or 2 replaces the chain by bias, temperature, mirostat.
  float mirostat_tau = 5.0f;
  float mirostat_eta = 0.1f;

  float adaptive_target = -1.0f;  ///< Negative: off.
  float adaptive_decay = 0.9f;

  ConstraintMode constraint_mode = ConstraintMode::kWinnerFirst;
};

/// Throws Error(kInvalidArgument) that names every wrong value, with what is accepted. `n_vocab` bounds the ids of
/// logit_bias.
void validate(const SamplingOptions& options, size_t n_vocab);

/// The seed of a request that gives it as an integer: -1 and 4294967295 mean "random" (nothing).
std::optional<uint64_t> seed_from_request(int64_t seed);

}  // namespace mneme
