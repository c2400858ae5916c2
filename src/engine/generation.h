#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "context/prefix_cache.h"
#include "engine/grammar/grammar_state.h"
#include "engine/sampling/logprobs.h"
#include "engine/sampling/sampling_options.h"
#include "model/mixer.h"
#include "model/tokenizer/tokenizer.h"

namespace mneme {

class Sampler;

/// A sequence that outlives a request: the tokens whose state is held. A later request that begins with the same tokens
/// computes only what is new. Used by one request at a time.
struct Conversation {
  std::unique_ptr<SequenceState> state;
  std::vector<TokenId> tokens;
};

/// Why an answer ended.
enum class FinishReason : uint8_t {
  kEnd,         ///< The model said so.
  kStopString,
  kLength,      ///< max_tokens reached.
  kContext,     ///< The context is full.
  kCancelled,
  kError,       ///< See GenerationResult::error.
};
std::string_view finish_reason_name(FinishReason reason);

/// One generated token.
struct GeneratedToken {
  TokenId token;
  float logprob = 0;                 ///< Of this token under the model, before samplers; only when asked for.
  std::vector<TokenLogprob> top;     ///< The n most probable tokens; only when asked for.
};

/// What a request brings back.
struct GenerationResult {
  FinishReason reason = FinishReason::kEnd;
  std::string stop_string;           ///< The one that was found.
  std::string error;                 ///< For kError: one line,
  ErrorCode error_code = ErrorCode::kOutOfBudget;  ///< and what kind of failure.
  std::vector<GeneratedToken> tokens;
  std::string text;
  uint32_t n_prompt = 0;             ///< Tokens of the prompt,
  uint32_t n_reused = 0;  ///< of which this many were not computed again: they came from the conversation's state
  uint32_t n_cached = 0;  ///< or, this many, from the prefix cache.
  MatchStop match_stop = MatchStop::kOff;  ///< Why not more came from the prefix cache;
  uint32_t n_equal = 0;                    ///< tokens of the prompt that agreed with something it knows.
  FetchCounts fetches;               ///< From the slow tier of keys and values, when the policy has one.
  double prompt_seconds = 0;         ///< From the first pass over the prompt to the first token.
  double decode_seconds = 0;         ///< From the first token to the last.
};

/// One piece of the answer as it is made.
struct GenerationEvent {
  std::string text;                  ///< Complete characters, stop strings held back; may be empty.
  const GeneratedToken* token = nullptr;
  const Sampler* sampler = nullptr;            ///< After this token was accepted.
  const GenerationResult* finished = nullptr;  ///< Set on the last event, which may carry text too.
};

/// What a request wants of the prefix cache.
struct CacheRequest {
  bool use = true;     ///< Look there for the beginning of the prompt.
  bool keep = true;    ///< Leave prompt and answer there.
  std::string tenant;  ///< Whose it is, from authentication; nothing is shared between tenants.
  KeepRules rules;
};

struct GenerationRequest {
  std::vector<TokenId> prompt;       ///< At least one token.
  uint32_t max_tokens = 0;           ///< 0: until the model ends or the context is full.
  SamplingOptions sampling;
  std::vector<std::string> stop;     ///< Not empty strings.
  std::unique_ptr<GrammarState> grammar;  ///< Restricts the answer; null: free.
  int n_logprobs = -1;               ///< >= 0: report log-probabilities and this many alternatives.
  Json sampler_state;                ///< Sampler::save_state() at the prompt's end, to go on drawing; null: begin anew.
  CacheRequest cache;
  std::shared_ptr<Conversation> conversation;  ///< Continue and keep a sequence; null: start empty, keep nothing.
  std::function<void(const GenerationEvent&)> on_event;  ///< Called on the scheduler's thread; may cancel requests.
};

}  // namespace mneme
