#include "model/arch/parts.h"

namespace mneme::arch {

/// Llama 1 to 3 (arXiv 2302.13971, 2407.21783), Mistral, SmolLM 1 and 2, TinyLlama; Mixtral (arXiv 2401.04088) with
/// experts; a layer without a router is dense.
///
///   x += attention(rms_norm(x))            interleaved rotary positions, grouped keys and values
///   x += swiglu(rms_norm(x))               or a mixture of SwiGLU experts
void build_llama(Model& model, WeightLoader& load, const Metadata&) {
  const Hyperparameters& h = model.hyper;
  using Bias = WeightLoader::Bias;
  model.ropes = {rope_from_file(model, load, RopeSpec::Pairing::kInterleaved)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const AttentionSpec spec = attention_spec(h, i, 0);
    Block block;
    block.mixer_norm = load.rms_norm("attn_norm", h.width, h.norm_eps);
    block.mixer = make_attention(spec, attention_weights(load, h, spec, Bias::kAny, Bias::kAny));
    block.channel_norm = load.rms_norm("ffn_norm", h.width, h.norm_eps);
    block.channel = has_experts(load, h) ? mixture(load, h, h.hidden[i])
                                         : make_feed_forward(Activation::kSilu, gated_weights(load, h, i, Bias::kAny));
    model.blocks.push_back(std::move(block));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

}  // namespace mneme::arch
