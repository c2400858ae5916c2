#pragma once

#include <string>
#include <vector>

#include "train/llama.h"
#include "train/tape/executor.h"

/// What training keeps between forward and backward, and where: a choice for the whole model, made from the memory that
/// is there and from measured speeds. After MEMO (arXiv 2407.12117, section 4.1): what attention needs to start again,
/// a block's input and attention's output, goes to the slower tier whole; of everything else a share alpha of the rows
/// goes there and the rest is computed again, with
///
///     alpha = clamp((bandwidth * T_block - S_anchors) / S_rest, 0, 1)
///
/// for T_block the seconds of one block's forward and S bytes of one block, so that a block's transfer takes as long as
/// the next one's computation. Here the slower tier is a file. The last block is always kept whole: its backward comes
/// at once. Not done: other choices for single blocks, and the page cache as a tier between memory and disk.
namespace mneme::train {

/// Policies by class of value.
struct SavingChoice {
  /// Block inputs, attention outputs and their log-sums, and where routers sent the tokens.
  Saving anchors = Saving::kKeep;
  /// Norm outputs, gated products and rows gathered for experts, which cost no product of matrices.
  Saving cheap = Saving::kKeep;
  Saving rest = Saving::kKeep;
  double offloaded_share = 1;  ///< Of the rows of `cheap` and `rest`, where those are kOffload.

  bool offloads() const;
  /// "keep all", "anchors to disk with 40 % of the rest", ...
  std::string description() const;
};

/// Everything but anchors is computed again.
inline constexpr SavingChoice kAnchorsOnly{Saving::kKeep, Saving::kRecompute, Saving::kRecompute, 1};

void apply_saving(LlamaModel<float>& model, const SavingChoice& choice);

/// What a step under a choice takes.
struct SavingCost {
  size_t arena_bytes = 0, gradient_bytes = 0, file_bytes = 0;
  double forward_flops = 0, recompute_flops = 0;
};

/// Of one micro-batch of n_tokens in one sequence. Leaves the choice applied.
SavingCost cost_of(LlamaModel<float>& model, const SavingChoice& choice, size_t n_tokens,
                   GradientLife life = GradientLife::kStep);

/// Speeds of this machine, for one model.
struct TrainingSpeed {
  double flops_per_s = 0;                  ///< Of a forward pass.
  double write_per_s = 0, read_per_s = 0;  ///< Bytes of a scratch file.

  /// Seconds that a micro-batch takes beyond its forward and backward when everything is kept.
  double extra_seconds(const SavingCost& cost) const;
};

/// Times a forward pass of at most `most_tokens` and 256 tokens, and transfers in `folder`; about a second. Takes
/// memory that is there for a step of most_tokens.
TrainingSpeed measure_speed(Ledger& ledger, LlamaModel<float>& model, size_t most_tokens, const std::string& folder);

/// alpha of the formula above, for the model at n_tokens.
double balanced_share(LlamaModel<float>& model, size_t n_tokens, const TrainingSpeed& speed);

/// Applies the choice that costs least time among those whose planned step of n_tokens, gradients included, fits what
/// is left of the ledger's limit. Without a limit, everything but cheap values is kept. Throws Error(kOutOfBudget) with
/// the smallest need.
SavingChoice fit_saving(Ledger& ledger, LlamaModel<float>& model, size_t n_tokens, GradientLife life,
                        const std::string& folder);

}  // namespace mneme::train
