#include "model/arch/parts.h"

namespace mneme::arch {

/// Qwen2 and Qwen2.5 (arXiv 2407.10671): llama with biases on q, k and v, and rotation by halves.
void build_qwen2(Model& model, WeightLoader& load, const Metadata&) {
  const Hyperparameters& h = model.hyper;
  using Bias = WeightLoader::Bias;
  model.ropes = {rope_from_file(model, load, RopeSpec::Pairing::kHalves)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const AttentionSpec spec = attention_spec(h, i, 0);
    Block block;
    block.mixer_norm = load.rms_norm("attn_norm", h.width, h.norm_eps);
    block.mixer = make_attention(spec, attention_weights(load, h, spec, Bias::kRequired, Bias::kNone));
    block.channel_norm = load.rms_norm("ffn_norm", h.width, h.norm_eps);
    block.channel = make_feed_forward(Activation::kSilu, gated_weights(load, h, i));
    model.blocks.push_back(std::move(block));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

}  // namespace mneme::arch
