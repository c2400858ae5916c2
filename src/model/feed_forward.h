#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/layers.h"
#include "model/mixer.h"

namespace mneme {

enum class Activation : uint8_t { kSilu, kGelu, kRelu };

/// Feed-forward layer. With `gate`: down(act(gate x) * up x) (arXiv 2002.05202). `gate_up` holds both in one matrix, gate
/// rows first. Without a gate: down(act(up x)), gelu only.
struct FeedForwardWeights {
  Linear gate, up, gate_up, down;
};
std::unique_ptr<ChannelMixer> make_feed_forward(Activation activation, const FeedForwardWeights& weights);

/// Mixture of experts: y = shared(x) + sum over the chosen experts of scale * w_e * expert_e(x), each a gated feed-forward
/// layer. Of the routed experts only those are read that a token of the batch was sent to.
struct MixtureSpec {
  Activation activation = Activation::kSilu;
  uint32_t n_used = 0;         ///< Experts a token is sent to.
  bool renormalise = true;     ///< Divide the chosen weights by their sum.
  float scale = 1;             ///< Of the chosen weights.
};
struct MixtureWeights {
  Linear router;               ///< [n_experts, E]; weights = softmax(router x) over all experts.
  std::vector<FeedForwardWeights> experts;
  FeedForwardWeights shared;   ///< Sees every token; empty: none.
};
std::unique_ptr<ChannelMixer> make_mixture(const MixtureSpec& spec, MixtureWeights weights);

}  // namespace mneme
