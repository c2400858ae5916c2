#include <cmath>

#include "model/arch/parts.h"

namespace mneme::arch {
namespace {

/// The scale of the largest model of each generation differs: 1 / sqrt(E / H) instead of 1 / sqrt(D).
float query_scale(const Hyperparameters& h, uint32_t n_layers_of_27b) {
  const float dim = h.n_layers == n_layers_of_27b ? static_cast<float>(h.width) / static_cast<float>(h.n_heads[0])
                                                  : static_cast<float>(h.key_dim);
  return 1 / std::sqrt(dim);
}

/// The block of both generations: four norms and GeGLU.
///
///   x += rms_norm(attention(rms_norm(x)))
///   x += rms_norm(geglu(rms_norm(x)))
Block gemma_block(WeightLoader& load, const Hyperparameters& h, uint32_t i, const AttentionSpec& spec, bool qk_norm) {
  AttentionWeights w = attention_weights(load, h, spec, WeightLoader::Bias::kNone, WeightLoader::Bias::kNone);
  if (qk_norm) {
    w.q_norm = load.rms_norm("attn_q_norm", h.key_dim, h.norm_eps);
    w.k_norm = load.rms_norm("attn_k_norm", h.key_dim, h.norm_eps);
  }
  Block block;
  block.mixer_norm = load.rms_norm("attn_norm", h.width, h.norm_eps);
  block.mixer = make_attention(spec, w);
  block.mixer_post_norm = load.rms_norm("post_attention_norm", h.width, h.norm_eps);
  block.channel_norm = load.rms_norm("ffn_norm", h.width, h.norm_eps);
  block.channel = make_feed_forward(Activation::kGelu, gated_weights(load, h, i));
  block.channel_post_norm = load.rms_norm("post_ffw_norm", h.width, h.norm_eps);
  return block;
}

}  // namespace

/// Gemma 2 (arXiv 2408.00118): even layers see a sliding window, odd ones everything; scores and logits are soft-capped.
void build_gemma2(Model& model, WeightLoader& load, const Metadata& metadata) {
  const Hyperparameters& h = model.hyper;
  constexpr uint32_t kWindow = 4096, kLayersOf27b = 46;
  model.embedding_scale = std::sqrt(static_cast<float>(h.width));
  model.logit_softcap = static_cast<float>(metadata.find_f64("gemma2.final_logit_softcapping").value_or(30));
  model.ropes = {rope_from_file(model, load, RopeSpec::Pairing::kHalves)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    AttentionSpec spec = attention_spec(h, i, 0);
    spec.scale = query_scale(h, kLayersOf27b);
    spec.softcap = static_cast<float>(metadata.find_f64("gemma2.attn_logit_softcapping").value_or(50));
    spec.window = i % 2 == 0 ? (h.window > 0 ? h.window : kWindow) : 0;
    model.blocks.push_back(gemma_block(load, h, i, spec, false));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

/// Gemma 3 (arXiv 2503.19786): five layers with a sliding window and base 10000, then one global layer with the file's base
/// and scaling; heads of q and k are normalised; no soft caps.
void build_gemma3(Model& model, WeightLoader& load, const Metadata&) {
  const Hyperparameters& h = model.hyper;
  constexpr uint32_t kPattern = 6, kLayersOf27b = 62;
  constexpr uint32_t kDefaultWindow = 1024;
  constexpr int kLocal = 0, kGlobal = 1;
  model.embedding_scale = std::sqrt(static_cast<float>(h.width));
  RopeParameters local;
  local.pairing = RopeSpec::Pairing::kHalves;
  local.n_rot = h.n_rot;
  model.ropes = {make_rope(local), rope_from_file(model, load, RopeSpec::Pairing::kHalves)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const bool is_local = i % kPattern < kPattern - 1;
    AttentionSpec spec = attention_spec(h, i, is_local ? kLocal : kGlobal);
    spec.scale = query_scale(h, kLayersOf27b);
    spec.window = is_local ? (h.window > 0 ? h.window : kDefaultWindow) : 0;
    model.blocks.push_back(gemma_block(load, h, i, spec, true));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

}  // namespace mneme::arch
