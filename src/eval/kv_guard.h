#pragma once

#include <optional>
#include <span>
#include <string>

#include "eval/kv_choice.h"

namespace mneme {

/// What a guard found when it looked.
struct KvGuardFinding {
  KvQuality now;       ///< The policy in use, on the newest tokens.
  bool inside = true;  ///< Whether it keeps to the bound there.
  std::string policy;  ///< What the engine uses from now on: the same, or the smallest larger one inside the bound.
  std::string reason;  ///< One line with the numbers.
};

/// Watches a policy that was chosen on other text (`--kv auto`) on the text that is really there. From time to time the
/// newest tokens are read twice, under the policy and in f16, and compared as at the choice; when the bound is broken the
/// engine steps back to the smallest of the larger candidates that keeps to it on these tokens, at the worst to f16.
///
/// A window is read without what lies before it, so what compression does to more distant tokens is not seen. One look
/// costs two passes over the window, and a pass more for each candidate that is tried.
class KvGuard {
 public:
  struct Options {
    KvBound bound;
    uint32_t window = 512;  ///< Tokens compared; the first half is only read.
    uint32_t every = 1024;  ///< New tokens from one look to the next.
  };

  /// `engine` must outlive the guard; its plan was made with PlanRequest::guard_tokens of the window. Without `may_step`
  /// it only finds.
  KvGuard(Engine& engine, const Options& options, bool may_step = true)
      : engine_(engine), options_(options), may_step_(may_step) {}

  /// `tokens` is the whole text so far; a text that got shorter is a new one. Nothing when it is not time yet. After a
  /// finding with `inside` false the states made before are of the old policy: drop them. Throws Error(kOutOfBudget) when
  /// there is no memory to look.
  std::optional<KvGuardFinding> look(std::span<const TokenId> tokens);

 private:
  KvQuality measure(std::span<const TokenId> window, const KvPolicy& policy);

  Engine& engine_;
  Options options_;
  bool may_step_;
  size_t looked_at_ = 0;  ///< Tokens of the text at the last look.
};

}  // namespace mneme
