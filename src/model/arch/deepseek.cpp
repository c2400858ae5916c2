#include "base/error.h"
#include "model/arch/parts.h"

namespace mneme::arch {
namespace {

uint64_t number(const Metadata& metadata, const char* key, uint64_t otherwise) {
  constexpr uint64_t kMost = uint64_t{1} << 30;
  const uint64_t value = metadata.find_u64(key).value_or(otherwise);
  if (value > kMost) fail(ErrorCode::kCorruptData, "[model] {}: expected at most {}, found {}", key, kMost, value);
  return value;
}

}  // namespace

/// DeepSeekMoE (arXiv 2401.06066) and MoTE (arXiv 2506.14435): llama with shared experts, which see every token, beside
/// the routed ones, whose probabilities are not divided by their sum. A layer without a router is dense.
///
///   x += attention(rms_norm(x))
///   x += shared(h) + scale * sum over the chosen e of p_e expert_e(h)      h = rms_norm(x), p = softmax(W h)
void build_deepseek(Model& model, WeightLoader& load, const Metadata& metadata) {
  const Hyperparameters& h = model.hyper;
  using Bias = WeightLoader::Bias;
  const uint64_t n_shared = number(metadata, "deepseek.expert_shared_count", 0);
  const auto scale = static_cast<float>(metadata.find_f64("deepseek.expert_weights_scale").value_or(1));
  const MixtureSpec spec{Activation::kSilu, h.n_experts_used, false, scale};
  model.ropes = {rope_from_file(model, load, RopeSpec::Pairing::kInterleaved)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const uint64_t hidden = number(metadata, "deepseek.expert_feed_forward_length", h.hidden[i]);
    const AttentionSpec attention = attention_spec(h, i, 0);
    Block block;
    block.mixer_norm = load.rms_norm("attn_norm", h.width, h.norm_eps);
    block.mixer = make_attention(attention, attention_weights(load, h, attention, Bias::kAny, Bias::kAny));
    block.channel_norm = load.rms_norm("ffn_norm", h.width, h.norm_eps);
    block.channel = has_experts(load, h) ? mixture(load, h, hidden, spec, n_shared * hidden)
                                         : make_feed_forward(Activation::kSilu, gated_weights(load, h, i));
    model.blocks.push_back(std::move(block));
  }
  decoder_ends(model, load, Norm::Kind::kRms);
}

}  // namespace mneme::arch
