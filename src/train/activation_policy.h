#pragma once

#include <string>

#include "train/llama.h"
#include "train/tape/executor.h"

namespace mneme::train {

/// Ready-made choices of what to keep between forward and backward, from most memory to least.
enum class SavingPreset : uint8_t {
  kKeepAll,
  kDropCheap,  ///< Norm outputs and gated products are computed again: about a third less memory, a few percent more
               ///< time.
  kAnchors,    ///< Only layer inputs, attention outputs and their log-sums stay; products are computed again.
};

std::string_view preset_name(SavingPreset preset);

void apply_preset(LlamaModel<float>& model, SavingPreset preset);

/// Applies the first preset whose planned step of n_tokens, gradients included, fits what is left of the ledger's
/// limit, and returns its name. Without a limit that is kDropCheap. Throws Error(kOutOfBudget) with the smallest need.
std::string fit_saving(Ledger& ledger, LlamaModel<float>& model, size_t n_tokens, GradientLife life);

}  // namespace mneme::train
