#pragma once

#include <cmath>
#include <string>

#include "model/architectures.h"
#include "model/attention.h"
#include "model/feed_forward.h"

/// Parts that several architectures share.
namespace mneme::arch {

inline std::string layer_prefix(uint32_t i) { return "blk." + std::to_string(i) + "."; }

/// Causal attention with the head counts of layer i and the usual 1 / sqrt(key_dim).
inline AttentionSpec attention_spec(const Hyperparameters& h, uint32_t i, int rope) {
  AttentionSpec spec;
  spec.n_heads = h.n_heads[i];
  spec.n_kv_heads = h.n_kv_heads[i];
  spec.key_dim = h.key_dim;
  spec.value_dim = h.value_dim;
  spec.scale = 1 / std::sqrt(static_cast<float>(h.key_dim));
  spec.rope = rope;
  return spec;
}

/// Separate q, k, v and output projections.
inline AttentionWeights attention_weights(WeightLoader& load, const Hyperparameters& h, const AttentionSpec& spec,
                                          WeightLoader::Bias qkv_bias, WeightLoader::Bias output_bias) {
  AttentionWeights w;
  w.q = load.linear("attn_q", uint64_t{spec.n_heads} * spec.key_dim, h.width, qkv_bias);
  w.k = load.linear("attn_k", uint64_t{spec.n_kv_heads} * spec.key_dim, h.width, qkv_bias);
  w.v = load.linear("attn_v", uint64_t{spec.n_kv_heads} * spec.value_dim, h.width, qkv_bias);
  w.output = load.linear("attn_output", h.width, uint64_t{spec.n_heads} * spec.value_dim, output_bias);
  return w;
}

/// One fused projection with rows q, k, v, and the output projection.
inline AttentionWeights fused_attention_weights(WeightLoader& load, const Hyperparameters& h, const AttentionSpec& spec,
                                                WeightLoader::Bias bias) {
  AttentionWeights w;
  const uint64_t rows =
      uint64_t{spec.n_heads} * spec.key_dim + uint64_t{spec.n_kv_heads} * (spec.key_dim + spec.value_dim);
  w.qkv = load.linear("attn_qkv", rows, h.width, bias);
  w.output = load.linear("attn_output", h.width, uint64_t{spec.n_heads} * spec.value_dim, bias);
  return w;
}

/// ffn_gate, ffn_up and ffn_down.
inline FeedForwardWeights gated_weights(WeightLoader& load, const Hyperparameters& h, uint32_t i,
                                        WeightLoader::Bias bias = WeightLoader::Bias::kNone) {
  FeedForwardWeights w;
  w.gate = load.linear("ffn_gate", h.hidden[i], h.width, bias);
  w.up = load.linear("ffn_up", h.hidden[i], h.width, bias);
  w.down = load.linear("ffn_down", h.width, h.hidden[i], bias);
  return w;
}

/// Whether the layer at hand is a mixture of experts.
inline bool has_experts(const WeightLoader& load, const Hyperparameters& h) {
  return h.n_experts > 0 && load.has("ffn_gate_inp.weight");
}

/// The stacks ffn_{gate,up,down}_exps behind the router ffn_gate_inp; experts of width `hidden`. With `shared_hidden` also
/// ffn_{gate,up,down}_shexp of that width.
inline std::unique_ptr<ChannelMixer> mixture(WeightLoader& load, const Hyperparameters& h, uint64_t hidden,
                                             const MixtureSpec& spec, uint64_t shared_hidden = 0) {
  MixtureWeights w;
  w.router = load.linear("ffn_gate_inp", h.n_experts, h.width);
  for (uint64_t e = 0; e < h.n_experts; ++e) {
    FeedForwardWeights expert;
    expert.gate = load.expert("ffn_gate_exps", h.n_experts, e, hidden, h.width);
    expert.up = load.expert("ffn_up_exps", h.n_experts, e, hidden, h.width);
    expert.down = load.expert("ffn_down_exps", h.n_experts, e, h.width, hidden);
    w.experts.push_back(expert);
  }
  if (shared_hidden > 0) {
    w.shared.gate = load.linear("ffn_gate_shexp", shared_hidden, h.width);
    w.shared.up = load.linear("ffn_up_shexp", shared_hidden, h.width);
    w.shared.down = load.linear("ffn_down_shexp", h.width, shared_hidden);
  }
  return make_mixture(spec, std::move(w));
}

/// The usual mixture: SwiGLU, chosen weights over their sum.
inline std::unique_ptr<ChannelMixer> mixture(WeightLoader& load, const Hyperparameters& h, uint64_t hidden) {
  return mixture(load, h, hidden, {Activation::kSilu, h.n_experts_used, true, 1});
}

/// Token embedding, final norm and output matrix of a decoder; the output is tied to the embedding where the file has none.
void decoder_ends(Model& model, WeightLoader& load, Norm::Kind norm);

/// The rotation that the metadata describes, with factors from the tensor `rope_freqs.weight` when the file has it.
RopeSpec rope_from_file(Model& model, WeightLoader& load, RopeSpec::Pairing pairing);

}  // namespace mneme::arch
