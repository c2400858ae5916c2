#pragma once

#include <cstdint>
#include <span>

#include "base/json.h"
#include "base/philox.h"
#include "engine/sampling/adaptive_p.h"
#include "engine/sampling/candidates.h"
#include "engine/sampling/dry.h"
#include "engine/sampling/penalties.h"
#include "engine/sampling/sampling_options.h"
#include "engine/sampling/token_constraint.h"
#include "engine/sampling/token_history.h"

namespace mneme {

/// Chooses the next token of one sequence.
///
///   Sampler sampler(options, vocabulary);
///   for (TokenId t : prompt) sampler.accept(t);                  // penalties and DRY see the prompt
///   for (;;) {
///     TokenId t = sampler.sample(logits, grammar);               // grammar: GrammarState* or nullptr
///     sampler.accept(t);
///     if (grammar) grammar->accept(t);
///     if (vocabulary.is_end_of_generation(t)) break;
///   }
///
/// The chain: logit bias, the steps of options.samplers in their order, adaptive-p, one draw from the softmax of what
/// remains. With mirostat: bias, temperature, mirostat. All random numbers come from one Philox stream of the request's
/// seed, so a result depends on the logits, the accepted tokens and the seed only, never on what else runs.
///
/// With a constraint, options.constraint_mode says whether it is asked for the winner first, and masks only when that is
/// refused (usual), or masks before anything else (exact). One thread at a time.
class Sampler {
 public:
  /// Validates the options. `vocabulary` must outlive the sampler.
  Sampler(SamplingOptions options, const VocabularyView& vocabulary);

  /// The next token for `logits` [n_vocab]. Does not accept it. Throws Error(kInvalidArgument) for logits of another size or
  /// with NaN or +inf, and when bias and constraint leave no token.
  TokenId sample(std::span<const float> logits, TokenConstraint* constraint = nullptr);

  /// Tells that `token` was added to the sequence (prompt or answer): moves the windows of penalties and DRY, and the
  /// feedback of mirostat and adaptive-p when it is the token that was sampled last.
  void accept(TokenId token);

  /// What was left at the end of the last sample() call, with the probabilities of the draw. Call it before the logits of
  /// that call are gone.
  std::span<const Candidate> last_candidates();

  /// The seed in use; with it a result can be repeated.
  uint64_t seed() const { return seed_; }
  const SamplingOptions& options() const { return options_; }

  /// All that changes from token to token, as JSON. Taken after accept(), a sampler with the same options that loads it
  /// continues identically.
  Json save_state() const;
  /// Throws Error(kCorruptData) that names the field when `state` is not from save_state() with these options.
  void load_state(const Json& state);

 private:
  TokenId draw(std::span<const float> logits, const TokenMask* mask);
  void apply_chain();
  void apply_step(SamplerKind kind);
  bool greedy_is_plain() const;
  size_t pick();
  size_t window(int last_n) const;

  SamplingOptions options_;
  const VocabularyView& vocabulary_;
  LogitBias bias_;
  uint64_t seed_;

  PhiloxStream random_;
  TokenHistory history_;
  Penalties penalties_;
  Dry dry_;
  AdaptiveP adaptive_;
  float mirostat_mu_;

  Candidates candidates_;
  TokenId sampled_ = -1;  ///< token of the last sample(), until something is accepted
  float sampled_p_ = 0;   ///< its probability for mirostat or adaptive-p
};

}  // namespace mneme
