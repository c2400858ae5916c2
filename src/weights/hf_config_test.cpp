#include "weights/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "weights/hf_names.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

SortedJson base(const char* model_type) {
  return {{"model_type", model_type},          {"hidden_size", 2048},       {"num_hidden_layers", 16},
          {"intermediate_size", 8192},         {"num_attention_heads", 32}, {"num_key_value_heads", 8},
          {"max_position_embeddings", 131072}, {"rms_norm_eps", 1e-5},      {"vocab_size", 1000}};
}

std::string refusal(const SortedJson& config) {
  try {
    (void)read_hf_config(config, "config.json");
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("config.json"));
    return e.what();
  }
  return "no error";
}

TEST(HfConfig, SizesUnderGgufKeys) {
  const HfConfig c = read_hf_config(base("mistral"), "config.json");
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.metadata.get_string("general.architecture"), "llama");
  EXPECT_EQ(c.metadata.get_u64("llama.block_count"), 16u);
  EXPECT_EQ(c.metadata.get_u64("llama.attention.head_count_kv"), 8u);
  EXPECT_EQ(c.metadata.get_u64("llama.attention.key_length"), 64u);
  EXPECT_EQ(c.metadata.get_u64("llama.rope.dimension_count"), 64u);
  EXPECT_EQ(c.metadata.get_f64("llama.rope.freq_base"), 10000.0);
  EXPECT_EQ(c.metadata.get_u64("llama.vocab_size"), 1000u);
  EXPECT_FALSE(c.tied_output);
  EXPECT_TRUE(c.generated.empty());
}

TEST(HfConfig, MissingAndWrongKeysAreNamed) {
  SortedJson config = base("llama");
  config.erase("hidden_size");
  EXPECT_THAT(refusal(config), HasSubstr("expected key 'hidden_size', found none"));
  config["hidden_size"] = "big";
  EXPECT_THAT(refusal(config), HasSubstr("'hidden_size': expected an integer that is not negative, found string"));
  config["hidden_size"] = -1;
  EXPECT_THAT(refusal(config), HasSubstr("'hidden_size'"));
  config["hidden_size"] = 1'000'000'000'000;
  EXPECT_THAT(refusal(config), HasSubstr("'hidden_size': expected at most 2147483647"));
  EXPECT_THAT(refusal(base("falcon")), HasSubstr("'model_type': expected one of llama"));
  EXPECT_THAT(refusal(SortedJson::array()), HasSubstr("'model_type'"));
  config = base("llama");
  config["num_key_value_heads"] = 5;
  EXPECT_THAT(refusal(config), HasSubstr("num_attention_heads"));
  config = base("llama");
  config["num_attention_heads"] = 0;
  EXPECT_NE(refusal(config), "no error");
}

TEST(HfConfig, SettingsWithoutCounterpartAreRefused) {
  const auto with = [](const char* type, const char* key, const SortedJson& value) {
    SortedJson config = base(type);
    config[key] = value;
    return refusal(config);
  };
  EXPECT_THAT(with("llama", "hidden_act", "relu"), HasSubstr("'hidden_act': expected 'silu', found \"relu\""));
  EXPECT_THAT(with("qwen2", "use_sliding_window", true), HasSubstr("'use_sliding_window'"));
  EXPECT_THAT(with("llama", "rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}), HasSubstr("found 'dynamic'"));
  EXPECT_THAT(with("llama", "rope_scaling", {{"type", "linear"}}), HasSubstr("positive 'factor'"));
  EXPECT_THAT(with("llama", "rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"beta_fast", 64}}),
              HasSubstr("beta_fast"));
  EXPECT_THAT(with("gemma2", "query_pre_attn_scalar", 100), HasSubstr("'query_pre_attn_scalar': expected 64"));
  EXPECT_THAT(with("bert", "position_embedding_type", "relative_key"), HasSubstr("'position_embedding_type'"));
}

TEST(HfConfig, LinearAndYarnScaling) {
  SortedJson config = base("qwen3");
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const Metadata yarn = read_hf_config(config, "config.json").metadata;
  EXPECT_EQ(yarn.get_string("qwen3.rope.scaling.type"), "yarn");
  EXPECT_EQ(yarn.get_f64("qwen3.rope.scaling.factor"), 4.0);
  EXPECT_EQ(yarn.get_u64("qwen3.rope.scaling.original_context_length"), 32768u);
  EXPECT_FALSE(yarn.has("qwen3.rope.scaling.attn_factor"));
  config.erase("rope_scaling");
  config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}};
  const Metadata linear = read_hf_config(config, "config.json").metadata;
  EXPECT_EQ(linear.get_string("qwen3.rope.scaling.type"), "linear");
  EXPECT_EQ(linear.get_f64("qwen3.rope.freq_base"), 1e6);
}

TEST(HfConfig, Llama3ScalingMakesDivisors) {
  SortedJson config = base("llama");
  config["rope_theta"] = 500000.0;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 32.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
  const HfConfig c = read_hf_config(config, "config.json");
  ASSERT_EQ(c.generated.size(), 1u);
  EXPECT_EQ(c.generated[0].name, "rope_freqs.weight");
  const std::vector<float>& divisors = c.generated[0].values;
  ASSERT_EQ(divisors.size(), 32u);
  // Wavelength of pair i is 2 pi 500000^(i/32): below 2048 up to i = 14, above 8192 from i = 18 on.
  const auto wave = [](double i) { return 2.0 * std::numbers::pi * std::pow(500000.0, i / 32.0); };
  ASSERT_LT(wave(14), 2048.0);
  ASSERT_GT(wave(18), 8192.0);
  EXPECT_EQ(divisors[0], 1.0f);
  EXPECT_EQ(divisors[14], 1.0f);
  EXPECT_EQ(divisors[18], 32.0f);
  EXPECT_EQ(divisors[31], 32.0f);
  // In between the frequency is a blend: 1/ff = (1 - s)/factor + s with s = (8192/wave - 1)/3.
  const double s = (8192.0 / wave(16) - 1.0) / 3.0;
  EXPECT_NEAR(1.0 / static_cast<double>(divisors[16]), (1.0 - s) / 32.0 + s, 1e-6);
}

TEST(HfConfig, LongropeKeepsBothTables) {
  SortedJson config = base("phi3");
  config["original_max_position_embeddings"] = 4096;
  config["sliding_window"] = 2047;
  config["rope_scaling"] = {{"type", "longrope"},
                            {"short_factor", std::vector<double>(32, 1.0)},
                            {"long_factor", std::vector<double>(32, 2.0)}};
  const HfConfig c = read_hf_config(config, "config.json");
  ASSERT_EQ(c.generated.size(), 2u);
  EXPECT_EQ(c.generated[0].name, "rope_factors_short.weight");
  EXPECT_EQ(c.generated[1].values[31], 2.0f);
  EXPECT_EQ(c.metadata.get_u64("phi3.attention.sliding_window"), 2047u);
  EXPECT_EQ(c.metadata.get_u64("phi3.rope.scaling.original_context_length"), 4096u);
  EXPECT_NEAR(c.metadata.get_f64("phi3.rope.scaling.attn_factor"), std::sqrt(1.0 + std::log(32.0) / std::log(4096.0)),
              1e-6);
  config["rope_scaling"]["long_factor"] = {1.0};
  EXPECT_THAT(refusal(config), HasSubstr("expected 32 numbers in 'long_factor', found 1"));
}

TEST(HfConfig, Gemma3FromTextPart) {
  SortedJson text = base("gemma3_text");
  text["sliding_window"] = 512;
  text["rope_theta"] = 1e6;
  text["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  for (const SortedJson& config : {text, SortedJson{{"model_type", "gemma3"}, {"text_config", text}}}) {
    const HfConfig c = read_hf_config(config, "config.json");
    EXPECT_EQ(c.architecture, "gemma3");
    EXPECT_TRUE(c.tied_output);
    EXPECT_EQ(c.metadata.get_u64("gemma3.attention.sliding_window"), 512u);
    EXPECT_EQ(c.metadata.get_f64("gemma3.rope.scaling.factor"), 8.0);
  }
}

TEST(HfConfig, NomicBert) {
  const SortedJson config = {{"model_type", "nomic_bert"},
                             {"n_embd", 768},
                             {"n_layer", 12},
                             {"n_head", 12},
                             {"n_inner", 3072},
                             {"n_positions", 2048},
                             {"layer_norm_epsilon", 1e-12},
                             {"activation_function", "swiglu"},
                             {"rotary_emb_base", 1000},
                             {"type_vocab_size", 2}};
  const Metadata m = read_hf_config(config, "config.json").metadata;
  EXPECT_EQ(m.get_f64("nomic-bert.rope.freq_base"), 1000.0);
  EXPECT_FALSE(m.get_bool("nomic-bert.attention.causal"));
  EXPECT_EQ(m.get_u64("nomic-bert.feed_forward_length"), 3072u);
}

TEST(HfNames, RulesOfEachArchitecture) {
  const auto name = [](const char* arch, const char* hf) { return gguf_name_of(arch, hf).value_or(HfName{"?"}).gguf; };
  const auto form = [](const char* arch, const char* hf) { return gguf_name_of(arch, hf)->form; };
  EXPECT_EQ(name("llama", "model.layers.12.self_attn.q_proj.weight"), "blk.12.attn_q.weight");
  EXPECT_EQ(form("llama", "model.layers.12.self_attn.q_proj.weight"), HfForm::kPermuteQ);
  EXPECT_EQ(form("llama", "model.layers.12.self_attn.k_proj.bias"), HfForm::kPermuteK);
  EXPECT_EQ(form("qwen2", "model.layers.12.self_attn.q_proj.weight"), HfForm::kAsIs);
  EXPECT_EQ(form("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"), HfForm::kSkip);
  EXPECT_EQ(gguf_name_of("qwen3moe", "model.layers.3.mlp.experts.17.down_proj.weight")->expert, 17u);
  EXPECT_EQ(name("gemma3", "language_model.model.layers.0.self_attn.k_norm.weight"), "blk.0.attn_k_norm.weight");
  EXPECT_EQ(form("gemma3", "model.norm.weight"), HfForm::kPlusOne);
  EXPECT_EQ(form("gemma3", "vision_tower.x"), HfForm::kSkip);
  EXPECT_EQ(name("gpt2", "h.0.mlp.c_fc.weight"), "blk.0.ffn_up.weight");
  EXPECT_EQ(form("gpt2", "transformer.h.3.attn.bias"), HfForm::kSkip);
  EXPECT_EQ(name("nomic-bert", "encoder.layers.1.mlp.fc12.weight"), "blk.1.ffn_gate.weight");
  EXPECT_EQ(name("nomic-bert", "emb_ln.bias"), "token_embd_norm.bias");
  EXPECT_EQ(name("llama", "model.layers.x.input_layernorm.weight"), "?");
  EXPECT_EQ(name("llama", "model.layers.1.input_layernorm.weight.more"), "?");
  EXPECT_EQ(name("llama", "model.layers.99999999999999999999999.input_layernorm.weight"), "?");
}

}  // namespace
}  // namespace mneme
