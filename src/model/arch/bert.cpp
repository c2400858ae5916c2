#include "base/error.h"
#include "model/arch/parts.h"

namespace mneme::arch {
namespace {

void encoder_ends(Model& model, WeightLoader& load, const Metadata& metadata) {
  const Hyperparameters& h = model.hyper;
  model.causal = false;
  load.set_prefix("");
  model.token_embedding = load.table("token_embd.weight", load.rows_of("token_embd.weight", h.n_vocab), h.width);
  if (load.has("token_types.weight")) {
    const WeightMatrix* types = load.table("token_types.weight", load.rows_of("token_types.weight", 1), h.width);
    model.type_embedding = load.row(*types, 0);
  }
  model.embedding_norm = load.layer_norm("token_embd_norm", h.width, h.norm_eps);
  const uint64_t pooling = metadata.find_u64(h.architecture + ".pooling_type").value_or(0);
  if (pooling > static_cast<uint64_t>(Pooling::kLast)) {
    fail(ErrorCode::kUnsupported, "[load model] {}.pooling_type: expected 0 to 3, found {}", h.architecture, pooling);
  }
  model.pooling = static_cast<Pooling>(pooling);
}

/// Attention over the whole sequence, then norms after the residual connections.
Block encoder_block(WeightLoader& load, const Hyperparameters& h, AttentionWeights w, AttentionSpec spec) {
  spec.causal = false;
  Block block;
  block.residual = Block::Residual::kPostNorm;
  block.mixer = make_attention(spec, w);
  block.mixer_post_norm = load.layer_norm("attn_output_norm", h.width, h.norm_eps);
  block.channel_post_norm = load.layer_norm("layer_output_norm", h.width, h.norm_eps);
  return block;
}

}  // namespace

/// BERT (arXiv 1810.04805) and models of its shape (bge, e5, MiniLM): learned positions, gelu, embeddings only.
///
///   x = layer_norm(token + type + position)
///   x = layer_norm(x + attention(x));  x = layer_norm(x + mlp(x))
void build_bert(Model& model, WeightLoader& load, const Metadata& metadata) {
  const Hyperparameters& h = model.hyper;
  using Bias = WeightLoader::Bias;
  encoder_ends(model, load, metadata);
  model.position_embedding = load.table("position_embd.weight", h.n_context, h.width);
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const AttentionSpec spec = attention_spec(h, i, -1);
    Block block = encoder_block(load, h, attention_weights(load, h, spec, Bias::kRequired, Bias::kRequired), spec);
    FeedForwardWeights ffn;
    ffn.up = load.linear("ffn_up", h.hidden[i], h.width, Bias::kRequired);
    ffn.down = load.linear("ffn_down", h.width, h.hidden[i], Bias::kRequired);
    block.channel = make_feed_forward(Activation::kGelu, ffn);
    model.blocks.push_back(std::move(block));
  }
}

/// Nomic BERT (arXiv 2402.01613): rotary positions by halves, fused q, k, v and SwiGLU, without biases.
void build_nomic_bert(Model& model, WeightLoader& load, const Metadata& metadata) {
  const Hyperparameters& h = model.hyper;
  encoder_ends(model, load, metadata);
  model.ropes = {rope_from_file(model, load, RopeSpec::Pairing::kHalves)};
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    load.set_prefix(layer_prefix(i));
    const AttentionSpec spec = attention_spec(h, i, 0);
    Block block = encoder_block(load, h, fused_attention_weights(load, h, spec, WeightLoader::Bias::kNone), spec);
    block.channel = make_feed_forward(Activation::kSilu, gated_weights(load, h, i));
    model.blocks.push_back(std::move(block));
  }
}

}  // namespace mneme::arch
