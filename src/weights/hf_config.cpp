#include "weights/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "weights/json_fields.h"

namespace mneme {
namespace {

/// How the keys of an architecture are read.
enum class Family { kDecoder, kGemma, kGpt2, kBert, kNomicBert };

struct HfArchitecture {
  std::string_view model_type;  ///< As in config.json.
  std::string_view gguf;
  Family family;
};
constexpr std::array<HfArchitecture, 12> kArchitectures = {{{"llama", "llama", Family::kDecoder},
                                                            {"mistral", "llama", Family::kDecoder},
                                                            {"qwen2", "qwen2", Family::kDecoder},
                                                            {"qwen3", "qwen3", Family::kDecoder},
                                                            {"qwen3_moe", "qwen3moe", Family::kDecoder},
                                                            {"phi3", "phi3", Family::kDecoder},
                                                            {"gemma2", "gemma2", Family::kGemma},
                                                            {"gemma3_text", "gemma3", Family::kGemma},
                                                            {"gemma3", "gemma3", Family::kGemma},
                                                            {"gpt2", "gpt2", Family::kGpt2},
                                                            {"bert", "bert", Family::kBert},
                                                            {"nomic_bert", "nomic-bert", Family::kNomicBert}}};

const HfArchitecture& find_architecture(const JsonFields& config) {
  const std::string type = config.find_string({"model_type"}).value_or("");
  std::string known;
  for (const HfArchitecture& arch : kArchitectures) {
    if (arch.model_type == type) return arch;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", arch.model_type);
  }
  fail(ErrorCode::kUnsupported, "[import] key 'model_type': expected one of {}, found '{}', in {}", known, type,
       config.source());
}

class ConfigMapper {
 public:
  ConfigMapper(const SortedJson& json, const std::string& source)
      : json_(text_part(json)), config_(json_, source), arch_(find_architecture(JsonFields(json, source))) {
    out_.architecture = arch_.gguf;
    out_.metadata = Metadata(source);
    out_.metadata.set_string("general.architecture", arch_.gguf);
    out_.metadata.set_string("general.type", "model");
  }

  HfConfig map() {
    switch (arch_.family) {
      case Family::kDecoder:
        decoder();
        break;
      case Family::kGemma:
        gemma();
        break;
      case Family::kGpt2:
        gpt2();
        break;
      case Family::kBert:
        bert();
        break;
      case Family::kNomicBert:
        nomic_bert();
        break;
    }
    return std::move(out_);
  }

 private:
  /// Configurations of models with several inputs keep those of the text model apart.
  static const SortedJson& text_part(const SortedJson& json) {
    const auto part = json.is_object() ? json.find("text_config") : json.end();
    return json.is_object() && part != json.end() && part->is_object() ? *part : json;
  }

  std::string key(std::string_view name) const { return fmt::format("{}.{}", arch_.gguf, name); }
  void set(std::string_view name, uint32_t value) { out_.metadata.set_u32(key(name), value); }
  void set_f32(std::string_view name, double value) { out_.metadata.set_f32(key(name), static_cast<float>(value)); }

  /// Refuses a setting that the architecture does not have here.
  void expect(bool holds, JsonFields::Names names, std::string_view expected) const {
    if (holds) return;
    const SortedJson* found = config_.find(names);
    fail(ErrorCode::kUnsupported, "[import] key '{}': expected {}, found {}, in {}", *names.begin(), expected,
         found == nullptr ? "none" : found->dump(-1, ' ', true, SortedJson::error_handler_t::replace),
         config_.source());
  }

  void expect_string(JsonFields::Names names, std::initializer_list<std::string_view> allowed) const {
    const auto value = config_.find_string(names);
    expect(!value || std::find(allowed.begin(), allowed.end(), *value) != allowed.end(), names,
           fmt::format("'{}'", *allowed.begin()));
  }

  /// Sizes that every architecture has.
  void sizes(uint32_t n_layers, uint32_t width, uint32_t hidden, uint32_t n_heads, uint32_t n_kv_heads,
             uint32_t context) {
    expect(n_heads > 0 && n_kv_heads > 0 && n_heads % n_kv_heads == 0, {"num_attention_heads", "n_head"},
           "a multiple of the key and value heads");
    out_.n_heads = n_heads;
    out_.n_kv_heads = n_kv_heads;
    set("block_count", n_layers);
    set("context_length", context);
    set("embedding_length", width);
    set("feed_forward_length", hidden);
    set("attention.head_count", n_heads);
    set("attention.head_count_kv", n_kv_heads);
    out_.n_vocab = config_.find_count({"vocab_size"}).value_or(0);
    if (out_.n_vocab > 0) set("vocab_size", static_cast<uint32_t>(out_.n_vocab));
  }

  /// Keys that llama and its kin share. Returns the width of a head.
  uint32_t common_decoder() {
    const uint32_t width = config_.count({"hidden_size"}), n_heads = config_.count({"num_attention_heads"});
    sizes(config_.count({"num_hidden_layers"}), width, config_.count({"intermediate_size"}), n_heads,
          config_.find_count({"num_key_value_heads"}).value_or(n_heads), config_.count({"max_position_embeddings"}));
    const uint32_t head_dim = config_.find_count({"head_dim"}).value_or(width / n_heads);
    set("attention.key_length", head_dim);
    set("attention.value_length", head_dim);
    set_f32("attention.layer_norm_rms_epsilon", config_.f64({"rms_norm_eps"}));
    return head_dim;
  }

  void decoder() {
    const uint32_t head_dim = common_decoder();
    expect_string({"hidden_act"}, {"silu", "swish"});
    expect(!config_.find_bool({"use_sliding_window"}).value_or(false), {"use_sliding_window"}, "false");
    out_.tied_output = config_.find_bool({"tie_word_embeddings"}).value_or(false);
    const double partial = rope_field("partial_rotary_factor").value_or(1.0);
    expect(partial > 0.0 && partial <= 1.0, {"partial_rotary_factor"}, "a number up to 1");
    const auto n_rot = static_cast<uint32_t>(std::lround(partial * head_dim));
    set("rope.dimension_count", n_rot);
    rope(n_rot);
    if (arch_.gguf == "phi3") {
      if (const auto window = config_.find_count({"sliding_window"})) set("attention.sliding_window", *window);
    }
    if (arch_.gguf == "qwen3moe") experts();
  }

  void experts() {
    out_.n_experts = config_.count({"num_experts", "num_local_experts"});
    set("expert_count", static_cast<uint32_t>(out_.n_experts));
    set("expert_used_count", config_.count({"num_experts_per_tok"}));
    set("expert_feed_forward_length", config_.count({"moe_intermediate_size"}));
    expect(config_.find_bool({"norm_topk_prob"}).value_or(true), {"norm_topk_prob"}, "true");
    expect(config_.find_count({"decoder_sparse_step"}).value_or(1) == 1, {"decoder_sparse_step"}, "1");
    const SortedJson* dense = config_.find({"mlp_only_layers"});
    expect(dense == nullptr || dense->empty(), {"mlp_only_layers"}, "no layers");
  }

  void gemma() {
    const uint32_t head_dim = common_decoder();
    expect_string({"hidden_activation", "hidden_act"}, {"gelu_pytorch_tanh", "gelu"});
    out_.tied_output = config_.find_bool({"tie_word_embeddings"}).value_or(true);
    set("attention.sliding_window", config_.find_count({"sliding_window"}).value_or(4096));
    set("rope.dimension_count", head_dim);
    // The runtime knows the scale of queries by the size of the model: width / heads in the largest, else the head
    // width.
    const uint32_t largest = arch_.gguf == "gemma2" ? 46 : 62;
    const double expected =
        config_.count({"num_hidden_layers"}) == largest
            ? static_cast<double>(config_.count({"hidden_size"})) / static_cast<double>(out_.n_heads)
            : static_cast<double>(head_dim);
    expect(config_.find_f64({"query_pre_attn_scalar"}).value_or(expected) == expected, {"query_pre_attn_scalar"},
           fmt::format("{}", expected));
    if (arch_.gguf == "gemma2") {
      set_f32("attn_logit_softcapping", config_.find_f64({"attn_logit_softcapping"}).value_or(50.0));
      set_f32("final_logit_softcapping", config_.find_f64({"final_logit_softcapping"}).value_or(30.0));
    } else {
      expect(config_.find_count({"sliding_window_pattern"}).value_or(6) == 6, {"sliding_window_pattern"}, "6");
      expect(config_.find({"attn_logit_softcapping"}) == nullptr, {"attn_logit_softcapping"}, "none");
      expect(config_.find({"final_logit_softcapping"}) == nullptr, {"final_logit_softcapping"}, "none");
      expect(config_.find_f64({"rope_local_base_freq"}).value_or(10000.0) == 10000.0, {"rope_local_base_freq"},
             "10000");
    }
    rope(head_dim);
  }

  void gpt2() {
    const uint32_t width = config_.count({"n_embd", "hidden_size"}), n_heads = config_.count({"n_head"});
    sizes(config_.count({"n_layer"}), width, config_.find_count({"n_inner"}).value_or(4 * width), n_heads, n_heads,
          config_.count({"n_positions", "n_ctx"}));
    set_f32("attention.layer_norm_epsilon", config_.find_f64({"layer_norm_epsilon"}).value_or(1e-5));
    expect_string({"activation_function"}, {"gelu_new", "gelu", "gelu_pytorch_tanh"});
    expect(config_.find_bool({"scale_attn_weights"}).value_or(true), {"scale_attn_weights"}, "true");
    expect(!config_.find_bool({"scale_attn_by_inverse_layer_idx"}).value_or(false), {"scale_attn_by_inverse_layer_idx"},
           "false");
    out_.tied_output = config_.find_bool({"tie_word_embeddings"}).value_or(true);
  }

  void encoder(uint32_t n_layers, uint32_t width, uint32_t hidden, uint32_t n_heads, uint32_t context) {
    sizes(n_layers, width, hidden, n_heads, n_heads, context);
    set_f32("attention.layer_norm_epsilon", config_.find_f64({"layer_norm_eps", "layer_norm_epsilon"}).value_or(1e-12));
    out_.metadata.set_bool(key("attention.causal"), false);
    out_.metadata.set_u32("tokenizer.ggml.token_type_count", config_.find_count({"type_vocab_size"}).value_or(1));
  }

  void bert() {
    encoder(config_.count({"num_hidden_layers"}), config_.count({"hidden_size"}), config_.count({"intermediate_size"}),
            config_.count({"num_attention_heads"}), config_.count({"max_position_embeddings"}));
    expect_string({"hidden_act"}, {"gelu", "gelu_new", "gelu_pytorch_tanh"});
    expect_string({"position_embedding_type"}, {"absolute"});
  }

  void nomic_bert() {
    const uint32_t width = config_.count({"n_embd", "hidden_size"}),
                   n_heads = config_.count({"n_head", "num_attention_heads"});
    encoder(config_.count({"n_layer", "num_hidden_layers"}), width, config_.count({"n_inner", "intermediate_size"}),
            n_heads, config_.count({"n_positions", "max_position_embeddings"}));
    expect_string({"activation_function"}, {"swiglu"});
    expect(!config_.find_bool({"prenorm"}).value_or(false), {"prenorm"}, "false");
    expect(!config_.find_bool({"qkv_proj_bias"}).value_or(false), {"qkv_proj_bias"}, "false");
    expect(!config_.find_bool({"rotary_emb_interleaved"}).value_or(false), {"rotary_emb_interleaved"}, "false");
    expect(config_.find_f64({"rotary_emb_fraction"}).value_or(1.0) == 1.0, {"rotary_emb_fraction"}, "1");
    set_f32("rope.freq_base", config_.find_f64({"rotary_emb_base"}).value_or(10000.0));
  }

  /// Rope settings are at the top level, in rope_scaling, or (newest) in rope_parameters, there perhaps by kind of
  /// layer.
  std::vector<const SortedJson*> rope_places() const {
    std::vector<const SortedJson*> places;
    if (const SortedJson* all = config_.find_object({"rope_parameters"})) {
      const SortedJson* full = JsonFields(*all, config_.source()).find_object({"full_attention"});
      places.push_back(full != nullptr ? full : all);
    }
    if (const SortedJson* scaling = config_.find_object({"rope_scaling"})) places.push_back(scaling);
    places.push_back(&json_);
    return places;
  }

  std::optional<double> rope_field(const char* name) const {
    for (const SortedJson* place : rope_places()) {
      if (const auto value = JsonFields(*place, config_.source()).find_f64({name})) return value;
    }
    return std::nullopt;
  }

  std::string rope_type() const {
    for (const SortedJson* place : rope_places()) {
      if (place == &json_) break;
      if (const auto type = JsonFields(*place, config_.source()).find_string({"rope_type", "type"})) return *type;
    }
    return "default";
  }

  double required_rope_field(const char* name) const {
    const auto value = rope_field(name);
    if (!value || !(*value > 0.0)) {
      fail(ErrorCode::kCorruptData, "[import] rope scaling: expected a positive '{}', found none, in {}", name,
           config_.source());
    }
    return *value;
  }

  void rope(uint32_t n_rot) {
    const double base = rope_field("rope_theta").value_or(10000.0);
    set_f32("rope.freq_base", base);
    const std::string type = rope_type();
    const auto original = rope_field("original_max_position_embeddings");
    if (original) set("rope.scaling.original_context_length", static_cast<uint32_t>(std::clamp(*original, 0.0, 2e9)));
    if (type == "default") return;
    if (type == "linear" || type == "yarn") {
      const double factor = required_rope_field("factor");
      out_.metadata.set_string(key("rope.scaling.type"), type);
      set_f32("rope.scaling.factor", factor);
      if (type == "yarn") yarn(factor);
    } else if (type == "llama3") {
      llama3(n_rot, base);
    } else if (type == "longrope" || type == "su") {
      longrope(n_rot);
    } else {
      fail(ErrorCode::kUnsupported,
           "[import] rope scaling: expected default, linear, yarn, llama3 or longrope, found '{}', in {}", type,
           config_.source());
    }
  }

  void yarn(double factor) {
    const bool usual = rope_field("beta_fast").value_or(32.0) == 32.0 && rope_field("beta_slow").value_or(1.0) == 1.0;
    expect(usual, {"rope_scaling", "rope_parameters"}, "yarn with beta_fast 32 and beta_slow 1");
    // The runtime applies the usual magnitude 1 + 0.1 ln(factor) itself and multiplies it by this key.
    if (const auto magnitude = rope_field("attention_factor")) {
      set_f32("rope.scaling.attn_factor", *magnitude / (1.0 + 0.1 * std::log(factor)));
    }
  }

  /// Divisors of llama3 scaling: long waves are stretched by `factor`, short ones kept, those between blended.
  void llama3(uint32_t n_rot, double base) {
    const double factor = required_rope_field("factor"), low = required_rope_field("low_freq_factor");
    const double high = required_rope_field("high_freq_factor");
    const double context = required_rope_field("original_max_position_embeddings");
    GeneratedTensor tensor{"rope_freqs.weight", {}};
    for (uint32_t i = 0; i < n_rot / 2; ++i) {
      const double frequency = std::pow(base, -2.0 * i / n_rot);
      const double wave = 2.0 * std::numbers::pi / frequency;
      double divisor = factor;
      if (wave < context / high) {
        divisor = 1.0;
      } else if (wave <= context / low) {
        const double share = (context / wave - low) / (high - low);
        divisor = 1.0 / ((1.0 - share) / factor + share);
      }
      tensor.values.push_back(static_cast<float>(divisor));
    }
    out_.generated.push_back(std::move(tensor));
  }

  void longrope(uint32_t n_rot) {
    for (const char* length : {"short", "long"}) {
      const std::string name = fmt::format("{}_factor", length);
      const SortedJson* list = nullptr;
      for (const SortedJson* place : rope_places()) {
        if (list == nullptr) list = JsonFields(*place, config_.source()).find({name.c_str()});
      }
      GeneratedTensor tensor{fmt::format("rope_factors_{}.weight", length), {}};
      if (list != nullptr && list->is_array()) {
        for (const SortedJson& value : *list) {
          if (value.is_number()) tensor.values.push_back(value.get<float>());
        }
      }
      if (tensor.values.size() != n_rot / 2) {
        fail(ErrorCode::kCorruptData, "[import] rope scaling: expected {} numbers in '{}', found {}, in {}", n_rot / 2,
             name, tensor.values.size(), config_.source());
      }
      out_.generated.push_back(std::move(tensor));
    }
    const double context = config_.count({"max_position_embeddings"});
    const double original = required_rope_field("original_max_position_embeddings");
    const double stretch = context / original;
    set_f32("rope.scaling.attn_factor",
            rope_field("attention_factor")
                .value_or(stretch <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original))));
  }

  const SortedJson& json_;
  JsonFields config_;
  const HfArchitecture& arch_;
  HfConfig out_;
};

}  // namespace

HfConfig read_hf_config(const SortedJson& config, const std::string& source) {
  return ConfigMapper(config, source).map();
}

}  // namespace mneme
