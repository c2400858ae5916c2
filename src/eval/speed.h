#pragma once

#include <cstdint>
#include <functional>

#include "engine/engine.h"
#include "eval/sample_statistics.h"

namespace mneme {

struct SpeedOptions {
  uint32_t n_tokens = 64;    ///< Tokens decoded, or read as a prompt, in one repetition.
  uint32_t depth = 0;        ///< Tokens in the context before the measurement starts.
  uint32_t repetitions = 5;  ///< Counted ones, after one that is not.
  bool repeat_page = false;  ///< Decoding: the context before is made of one page's tokens (repeated_context.h).
};

struct SpeedResult {
  SampleStatistics tokens_per_second;  ///< Of all sequences together.
  FetchCounts fetches;                 ///< During all repetitions, of policies with a slow tier.
  uint64_t state_bytes = 0;            ///< That the state of one sequence holds at the end; only of decoding.
  double bytes_per_token = 0;          ///< Weights and context read for one pass, divided by its sequences.
};

/// Speed of reading prompts: tokens of one prompt a second, logits of the last token included.
SpeedResult prefill_speed(Engine& engine, const SpeedOptions& options);

/// Speed of answering: one token of every sequence a pass (plan().n_sequences side by side), best token each time.
SpeedResult decode_speed(Engine& engine, const SpeedOptions& options);

}  // namespace mneme
