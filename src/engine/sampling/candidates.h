#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "engine/sampling/dense_logits.h"
#include "engine/sampling/token_constraint.h"

namespace mneme {

/// The tokens that may still be chosen, as they pass through the chain of samplers.
///
/// It starts "dense": the logits of the whole vocabulary, where a banned token has -inf. The first sampler that drops
/// tokens, or needs them one by one, turns it into a list. Invariants of the list:
///  1. the first n_ranked() items are in rank order and rank before all others;
///  2. `p` is valid only directly after normalize();
///  3. no item is banned.
class Candidates {
 public:
  /// Starts anew from `logits`, which must live until the next reset. Tokens outside `mask` (if given) are banned.
  /// Throws Error(kInvalidArgument) for NaN or +inf logits.
  void reset(std::span<const float> logits, const TokenMask* mask);

  bool is_dense() const { return dense_; }
  /// The logits of the vocabulary. REQUIRES is_dense().
  std::span<const float> logits() const { return logits_; }
  /// The same for writing; copies them first when they still belong to the caller.
  std::span<float> mutable_logits();

  /// The list; leaves the dense stage. Empty only when every token is banned.
  std::span<Candidate> items();
  size_t size() { return items().size(); }

  /// Largest logit in either stage. Throws Error(kInvalidArgument) when every token is banned.
  float max_logit();
  /// Sum of exp(logit - max_logit()) in either stage.
  double sum_exp();
  /// Calls change(id, logit) for each token of `ids` (ascending, no duplicates) that is still a candidate.
  void change_logits(std::span<const TokenId> ids, const std::function<void(TokenId, float&)>& change);

  /// Makes at least the first min(n, size) items ranked, without sorting the rest.
  std::span<Candidate> rank(size_t n);
  /// Fills p = softmax(logit) of all items.
  std::span<Candidate> normalize();

  /// Keeps the first n items of the list.
  void keep_first(size_t n);
  /// Keeps the items for which keep(item) is true; order stays.
  template <typename Keep>
  void keep_if(Keep keep) {
    std::span<Candidate> all = items();
    size_t kept = 0, ranked = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!keep(all[i])) continue;
      all[kept++] = all[i];
      if (i < n_ranked_) ranked = kept;
    }
    list_.resize(kept);
    n_ranked_ = ranked;
  }
  /// Keeps the n best, ranked; from the dense stage without listing the vocabulary.
  void keep_top(size_t n);
  /// Keeps the tokens with logit >= threshold.
  void keep_at_least(float threshold);
  /// Replaces the list by tokens found by other means; `ranked` says that all are in rank order.
  void assign(std::vector<Candidate>& list, bool ranked);
  /// Says that logits were changed through items(): the order is unknown now.
  void forget_order() { n_ranked_ = 0; }
  size_t n_ranked() const { return n_ranked_; }

 private:
  bool dense_ = false;
  std::span<const float> logits_;
  std::vector<float> copy_;
  std::vector<Candidate> list_;
  size_t n_ranked_ = 0;
};

}  // namespace mneme
