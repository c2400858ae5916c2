#include "base/error.h"
#include "model/arch/parts.h"

namespace mneme::arch {
namespace {

/// Longrope: one table of divisors for short and one for long runs. The trained length decides here, so that cached keys
/// of one model never mix both.
RopeSpec longrope(Model& model, WeightLoader& load) {
  const Hyperparameters& h = model.hyper;
  load.set_prefix("");
  if (!load.has("rope_factors_long.weight")) return rope_from_file(model, load, RopeSpec::Pairing::kHalves);
  const float* const long_factors = load.vector("rope_factors_long.weight", h.n_rot / 2);
  const float* const short_factors = load.vector("rope_factors_short.weight", h.n_rot / 2);
  RopeParameters p;
  p.pairing = RopeSpec::Pairing::kHalves;
  p.n_rot = h.n_rot;
  p.base = h.rope_base;
  p.attention_factor = h.rope_attention_factor;
  p.factors = {static_cast<double>(model.run_context) > h.rope_original_context ? long_factors : short_factors, h.n_rot / 2};
  return make_rope(p);
}

}  // namespace

/// Phi-3 and Phi-4 (arXiv 2404.14219): fused q, k, v; fused gate and up; rotation by halves.
void build_phi3(Model& model, WeightLoader& load, const Metadata&) {
  const Hyperparameters& h = model.hyper;
  using Bias = WeightLoader::Bias;
  model.ropes = {longrope(model, load)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    AttentionSpec spec = attention_spec(h, i, 0);
    spec.window = h.window;
    Block block;
    block.mixer_norm = load.rms_norm("attn_norm", h.width, h.norm_eps);
    block.mixer = make_attention(spec, load.has("attn_qkv.weight")
                                           ? fused_attention_weights(load, h, spec, Bias::kAny)
                                           : attention_weights(load, h, spec, Bias::kAny, Bias::kAny));
    block.channel_norm = load.rms_norm("ffn_norm", h.width, h.norm_eps);
    FeedForwardWeights ffn;
    ffn.gate_up = load.linear("ffn_up", uint64_t{2} * h.hidden[i], h.width);
    ffn.down = load.linear("ffn_down", h.width, h.hidden[i]);
    block.channel = make_feed_forward(Activation::kSilu, ffn);
    model.blocks.push_back(std::move(block));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

}  // namespace mneme::arch
