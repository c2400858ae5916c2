#include "model/arch/parts.h"

namespace mneme::arch {
namespace {

/// Attention of Qwen3 (arXiv 2505.09388): heads of q and k are normalised before the rotation; no biases.
std::unique_ptr<SequenceMixer> qwen3_attention(WeightLoader& load, const Hyperparameters& h, uint32_t i) {
  const AttentionSpec spec = attention_spec(h, i, 0);
  AttentionWeights w = attention_weights(load, h, spec, WeightLoader::Bias::kNone, WeightLoader::Bias::kNone);
  w.q_norm = load.rms_norm("attn_q_norm", h.key_dim, h.norm_eps);
  w.k_norm = load.rms_norm("attn_k_norm", h.key_dim, h.norm_eps);
  return make_attention(spec, w);
}

void build(Model& model, WeightLoader& load, auto&& make_channel) {
  const Hyperparameters& h = model.hyper;
  model.ropes = {rope_from_file(model, load, RopeSpec::Pairing::kHalves)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    Block block;
    block.mixer_norm = load.rms_norm("attn_norm", h.width, h.norm_eps);
    block.mixer = qwen3_attention(load, h, i);
    block.channel_norm = load.rms_norm("ffn_norm", h.width, h.norm_eps);
    block.channel = make_channel(i);
    model.blocks.push_back(std::move(block));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

}  // namespace

/// Qwen3 dense: SwiGLU channels.
void build_qwen3(Model& model, WeightLoader& load, const Metadata&) {
  build(model, load, [&](uint32_t i) {
    return make_feed_forward(Activation::kSilu, gated_weights(load, model.hyper, i));
  });
}

/// Qwen3 with experts: every channel mixer is a mixture, softmax over all experts, chosen weights renormalised.
void build_qwen3moe(Model& model, WeightLoader& load, const Metadata& metadata) {
  const Hyperparameters& h = model.hyper;
  const uint64_t hidden = metadata.find_u64("qwen3moe.expert_feed_forward_length").value_or(h.hidden[0]);
  build(model, load, [&](uint32_t) { return mixture(load, h, hidden); });
}

}  // namespace mneme::arch
