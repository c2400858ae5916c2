#include "weights/hf_names.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <span>

namespace mneme {
namespace {

/// "{n}" stands for the layer and "{e}" for the expert; the GGUF name of a layer's tensor gets "blk.N." in front.
struct Rule {
  std::string_view hf, gguf;
  HfForm form = HfForm::kAsIs;
};

// llama, mistral, qwen2, qwen3, qwen3_moe.
constexpr Rule kDecoder[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"layers.{n}.input_layernorm.weight", "attn_norm.weight"},
    {"layers.{n}.post_attention_layernorm.weight", "ffn_norm.weight"},
    {"layers.{n}.self_attn.q_proj.weight", "attn_q.weight", HfForm::kPermuteQ},
    {"layers.{n}.self_attn.k_proj.weight", "attn_k.weight", HfForm::kPermuteK},
    {"layers.{n}.self_attn.v_proj.weight", "attn_v.weight"},
    {"layers.{n}.self_attn.o_proj.weight", "attn_output.weight"},
    {"layers.{n}.self_attn.q_proj.bias", "attn_q.bias", HfForm::kPermuteQ},
    {"layers.{n}.self_attn.k_proj.bias", "attn_k.bias", HfForm::kPermuteK},
    {"layers.{n}.self_attn.v_proj.bias", "attn_v.bias"},
    {"layers.{n}.self_attn.o_proj.bias", "attn_output.bias"},
    {"layers.{n}.self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"layers.{n}.self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"layers.{n}.mlp.gate_proj.weight", "ffn_gate.weight"},
    {"layers.{n}.mlp.up_proj.weight", "ffn_up.weight"},
    {"layers.{n}.mlp.down_proj.weight", "ffn_down.weight"},
    {"layers.{n}.mlp.gate_proj.bias", "ffn_gate.bias"},
    {"layers.{n}.mlp.up_proj.bias", "ffn_up.bias"},
    {"layers.{n}.mlp.down_proj.bias", "ffn_down.bias"},
    {"layers.{n}.mlp.gate.weight", "ffn_gate_inp.weight"},
    {"layers.{n}.mlp.experts.{e}.gate_proj.weight", "ffn_gate_exps.weight", HfForm::kExpert},
    {"layers.{n}.mlp.experts.{e}.up_proj.weight", "ffn_up_exps.weight", HfForm::kExpert},
    {"layers.{n}.mlp.experts.{e}.down_proj.weight", "ffn_down_exps.weight", HfForm::kExpert},
};

constexpr Rule kPhi3[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"layers.{n}.input_layernorm.weight", "attn_norm.weight"},
    {"layers.{n}.post_attention_layernorm.weight", "ffn_norm.weight"},
    {"layers.{n}.self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"layers.{n}.self_attn.o_proj.weight", "attn_output.weight"},
    {"layers.{n}.mlp.gate_up_proj.weight", "ffn_up.weight"},
    {"layers.{n}.mlp.down_proj.weight", "ffn_down.weight"},
};

constexpr Rule kGemma[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight", HfForm::kPlusOne},
    {"lm_head.weight", "output.weight"},
    {"layers.{n}.input_layernorm.weight", "attn_norm.weight", HfForm::kPlusOne},
    {"layers.{n}.post_attention_layernorm.weight", "post_attention_norm.weight", HfForm::kPlusOne},
    {"layers.{n}.pre_feedforward_layernorm.weight", "ffn_norm.weight", HfForm::kPlusOne},
    {"layers.{n}.post_feedforward_layernorm.weight", "post_ffw_norm.weight", HfForm::kPlusOne},
    {"layers.{n}.self_attn.q_proj.weight", "attn_q.weight"},
    {"layers.{n}.self_attn.k_proj.weight", "attn_k.weight"},
    {"layers.{n}.self_attn.v_proj.weight", "attn_v.weight"},
    {"layers.{n}.self_attn.o_proj.weight", "attn_output.weight"},
    {"layers.{n}.self_attn.q_norm.weight", "attn_q_norm.weight", HfForm::kPlusOne},
    {"layers.{n}.self_attn.k_norm.weight", "attn_k_norm.weight", HfForm::kPlusOne},
    {"layers.{n}.mlp.gate_proj.weight", "ffn_gate.weight"},
    {"layers.{n}.mlp.up_proj.weight", "ffn_up.weight"},
    {"layers.{n}.mlp.down_proj.weight", "ffn_down.weight"},
};

constexpr Rule kGpt2[] = {
    {"wte.weight", "token_embd.weight"},
    {"wpe.weight", "position_embd.weight"},
    {"ln_f.weight", "output_norm.weight"},
    {"ln_f.bias", "output_norm.bias"},
    {"lm_head.weight", "output.weight"},
    {"h.{n}.ln_1.weight", "attn_norm.weight"},
    {"h.{n}.ln_1.bias", "attn_norm.bias"},
    {"h.{n}.attn.c_attn.weight", "attn_qkv.weight", HfForm::kTranspose},
    {"h.{n}.attn.c_attn.bias", "attn_qkv.bias"},
    {"h.{n}.attn.c_proj.weight", "attn_output.weight", HfForm::kTranspose},
    {"h.{n}.attn.c_proj.bias", "attn_output.bias"},
    {"h.{n}.ln_2.weight", "ffn_norm.weight"},
    {"h.{n}.ln_2.bias", "ffn_norm.bias"},
    {"h.{n}.mlp.c_fc.weight", "ffn_up.weight", HfForm::kTranspose},
    {"h.{n}.mlp.c_fc.bias", "ffn_up.bias"},
    {"h.{n}.mlp.c_proj.weight", "ffn_down.weight", HfForm::kTranspose},
    {"h.{n}.mlp.c_proj.bias", "ffn_down.bias"},
    {"h.{n}.attn.bias", "", HfForm::kSkip},  // The causal mask.
    {"h.{n}.attn.masked_bias", "", HfForm::kSkip},
};

constexpr Rule kBert[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight"},
    {"embeddings.position_embeddings.weight", "position_embd.weight"},
    {"embeddings.token_type_embeddings.weight", "token_types.weight"},
    {"embeddings.LayerNorm.weight", "token_embd_norm.weight"},
    {"embeddings.LayerNorm.bias", "token_embd_norm.bias"},
    {"embeddings.position_ids", "", HfForm::kSkip},
    {"encoder.layer.{n}.attention.self.query.weight", "attn_q.weight"},
    {"encoder.layer.{n}.attention.self.query.bias", "attn_q.bias"},
    {"encoder.layer.{n}.attention.self.key.weight", "attn_k.weight"},
    {"encoder.layer.{n}.attention.self.key.bias", "attn_k.bias"},
    {"encoder.layer.{n}.attention.self.value.weight", "attn_v.weight"},
    {"encoder.layer.{n}.attention.self.value.bias", "attn_v.bias"},
    {"encoder.layer.{n}.attention.output.dense.weight", "attn_output.weight"},
    {"encoder.layer.{n}.attention.output.dense.bias", "attn_output.bias"},
    {"encoder.layer.{n}.attention.output.LayerNorm.weight", "attn_output_norm.weight"},
    {"encoder.layer.{n}.attention.output.LayerNorm.bias", "attn_output_norm.bias"},
    {"encoder.layer.{n}.intermediate.dense.weight", "ffn_up.weight"},
    {"encoder.layer.{n}.intermediate.dense.bias", "ffn_up.bias"},
    {"encoder.layer.{n}.output.dense.weight", "ffn_down.weight"},
    {"encoder.layer.{n}.output.dense.bias", "ffn_down.bias"},
    {"encoder.layer.{n}.output.LayerNorm.weight", "layer_output_norm.weight"},
    {"encoder.layer.{n}.output.LayerNorm.bias", "layer_output_norm.bias"},
};

constexpr Rule kNomicBert[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight"},
    {"embeddings.token_type_embeddings.weight", "token_types.weight"},
    {"emb_ln.weight", "token_embd_norm.weight"},
    {"emb_ln.bias", "token_embd_norm.bias"},
    {"encoder.layers.{n}.attn.Wqkv.weight", "attn_qkv.weight"},
    {"encoder.layers.{n}.attn.out_proj.weight", "attn_output.weight"},
    {"encoder.layers.{n}.norm1.weight", "attn_output_norm.weight"},
    {"encoder.layers.{n}.norm1.bias", "attn_output_norm.bias"},
    {"encoder.layers.{n}.mlp.fc11.weight", "ffn_up.weight"},
    {"encoder.layers.{n}.mlp.fc12.weight", "ffn_gate.weight"},
    {"encoder.layers.{n}.mlp.fc2.weight", "ffn_down.weight"},
    {"encoder.layers.{n}.norm2.weight", "layer_output_norm.weight"},
    {"encoder.layers.{n}.norm2.bias", "layer_output_norm.bias"},
};

std::span<const Rule> rules_of(std::string_view architecture) {
  if (architecture == "phi3") return kPhi3;
  if (architecture == "gemma2" || architecture == "gemma3") return kGemma;
  if (architecture == "gpt2") return kGpt2;
  if (architecture == "bert") return kBert;
  if (architecture == "nomic-bert") return kNomicBert;
  return kDecoder;
}

/// The name without the prefixes that only say which wrapper class saved the model.
std::string_view strip_wrapper(std::string_view name) {
  for (std::string_view prefix : {"language_model.", "model.language_model."}) {
    if (name.starts_with(prefix)) {
      name.remove_prefix(prefix.size());
      break;
    }
  }
  for (std::string_view prefix : {"model.", "transformer.", "bert."}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

bool take_number(std::string_view& text, uint64_t* number) {
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), *number);
  if (status != std::errc{} || end == text.data()) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

/// Matches a name against a pattern and reads the numbers in it.
bool matches(std::string_view pattern, std::string_view name, uint64_t* layer, uint64_t* expert) {
  while (!pattern.empty()) {
    if (pattern.starts_with("{n}") || pattern.starts_with("{e}")) {
      if (!take_number(name, pattern[1] == 'n' ? layer : expert)) return false;
      pattern.remove_prefix(3);
      continue;
    }
    if (name.empty() || name.front() != pattern.front()) return false;
    pattern.remove_prefix(1);
    name.remove_prefix(1);
  }
  return name.empty();
}

bool is_never_needed(std::string_view name) {
  for (std::string_view part : {"vision_tower.", "multi_modal_projector.", "pooler.", "cls."}) {
    if (name.starts_with(part)) return true;
  }
  return name.ends_with("rotary_emb.inv_freq");
}

}  // namespace

std::optional<HfName> gguf_name_of(std::string_view architecture, std::string_view hf_name) {
  const std::string_view name = strip_wrapper(hf_name);
  if (is_never_needed(name)) return HfName{"", HfForm::kSkip};
  for (const Rule& rule : rules_of(architecture)) {
    uint64_t layer = 0, expert = 0;
    if (!matches(rule.hf, name, &layer, &expert)) continue;
    HfName out;
    out.form = rule.form;
    out.expert = expert;
    // Only llama files rotate neighbouring pairs.
    const bool permutes = out.form == HfForm::kPermuteQ || out.form == HfForm::kPermuteK;
    if (permutes && architecture != "llama") out.form = HfForm::kAsIs;
    if (out.form != HfForm::kSkip) {
      out.gguf = rule.hf.find("{n}") == std::string_view::npos ? std::string(rule.gguf)
                                                               : fmt::format("blk.{}.{}", layer, rule.gguf);
    }
    return out;
  }
  return std::nullopt;
}

}  // namespace mneme
