#include "model/arch/parts.h"

namespace mneme::arch {

/// GPT-2 (Radford et al. 2019): learned positions, LayerNorm and biases everywhere, plain gelu layers.
///
///   x = token_embedding + position_embedding
///   x += attention(layer_norm(x));  x += mlp(layer_norm(x))
void build_gpt2(Model& model, WeightLoader& load, const Metadata&) {
  const Hyperparameters& h = model.hyper;
  using Bias = WeightLoader::Bias;
  load.set_prefix("");
  model.position_embedding = load.table("position_embd.weight", h.n_context, h.width);
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const AttentionSpec spec = attention_spec(h, i, -1);
    Block block;
    block.mixer_norm = load.layer_norm("attn_norm", h.width, h.norm_eps);
    block.mixer = make_attention(spec, fused_attention_weights(load, h, spec, Bias::kRequired));
    block.channel_norm = load.layer_norm("ffn_norm", h.width, h.norm_eps);
    FeedForwardWeights ffn;
    ffn.up = load.linear("ffn_up", h.hidden[i], h.width, Bias::kRequired);
    ffn.down = load.linear("ffn_down", h.width, h.hidden[i], Bias::kRequired);
    block.channel = make_feed_forward(Activation::kGelu, ffn);
    model.blocks.push_back(std::move(block));
  }
  decoder_ends(model, load, Norm::Kind::kLayer);
}

}  // namespace mneme::arch
