#include "weights/hf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "base/test_data.h"
#include "weights/gguf_test_bytes.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

/// A tensor to be written in Hugging Face form.
struct Stored {
  std::string name, dtype;
  std::vector<uint64_t> shape;
  std::string bytes;
};

void write_safetensors(const std::string& path, const std::vector<Stored>& tensors) {
  SortedJson header = SortedJson::object();
  std::string data;
  for (const Stored& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text += ' ';
  GgufTestBytes size;
  size.number<uint64_t>(text.size());
  std::ofstream out(path, std::ios::binary);
  out << size.text() << text << data;
}

using NameMap = std::map<std::string, std::string>;

/// Hugging Face names by what follows "blk.N." or the whole GGUF name, written down apart from the importer's rules.
const NameMap& decoder_names() {
  static const NameMap names = {{"token_embd.weight", "model.embed_tokens.weight"},
                                {"output_norm.weight", "model.norm.weight"},
                                {"output.weight", "lm_head.weight"},
                                {"attn_norm.weight", "input_layernorm.weight"},
                                {"ffn_norm.weight", "post_attention_layernorm.weight"},
                                {"attn_q.weight", "self_attn.q_proj.weight"},
                                {"attn_k.weight", "self_attn.k_proj.weight"},
                                {"attn_v.weight", "self_attn.v_proj.weight"},
                                {"attn_q.bias", "self_attn.q_proj.bias"},
                                {"attn_k.bias", "self_attn.k_proj.bias"},
                                {"attn_v.bias", "self_attn.v_proj.bias"},
                                {"attn_qkv.weight", "self_attn.qkv_proj.weight"},
                                {"attn_output.weight", "self_attn.o_proj.weight"},
                                {"attn_q_norm.weight", "self_attn.q_norm.weight"},
                                {"attn_k_norm.weight", "self_attn.k_norm.weight"},
                                {"ffn_gate.weight", "mlp.gate_proj.weight"},
                                {"ffn_up.weight", "mlp.up_proj.weight"},
                                {"ffn_down.weight", "mlp.down_proj.weight"},
                                {"ffn_gate_inp.weight", "mlp.gate.weight"}};
  return names;
}

NameMap names_of(const std::string& arch) {
  NameMap names = decoder_names();
  if (arch == "phi3") names["ffn_up.weight"] = "mlp.gate_up_proj.weight";
  if (arch == "gemma2") {
    names["post_attention_norm.weight"] = "post_attention_layernorm.weight";
    names["ffn_norm.weight"] = "pre_feedforward_layernorm.weight";
    names["post_ffw_norm.weight"] = "post_feedforward_layernorm.weight";
  }
  if (arch == "gpt2") {
    names = {{"token_embd.weight", "transformer.wte.weight"},
             {"position_embd.weight", "transformer.wpe.weight"},
             {"output_norm.weight", "transformer.ln_f.weight"},
             {"output_norm.bias", "transformer.ln_f.bias"},
             {"output.weight", "lm_head.weight"}};
    for (const auto& [gguf, hf] : NameMap{{"attn_norm", "ln_1"},
                                          {"attn_qkv", "attn.c_attn"},
                                          {"attn_output", "attn.c_proj"},
                                          {"ffn_norm", "ln_2"},
                                          {"ffn_up", "mlp.c_fc"},
                                          {"ffn_down", "mlp.c_proj"}}) {
      for (const char* part : {".weight", ".bias"}) names[gguf + part] = hf + part;
    }
  }
  if (arch == "bert") {
    names = {{"token_embd.weight", "embeddings.word_embeddings.weight"},
             {"position_embd.weight", "embeddings.position_embeddings.weight"},
             {"token_types.weight", "embeddings.token_type_embeddings.weight"},
             {"token_embd_norm.weight", "embeddings.LayerNorm.weight"},
             {"token_embd_norm.bias", "embeddings.LayerNorm.bias"}};
    for (const auto& [gguf, hf] : NameMap{{"attn_q", "attention.self.query"},
                                          {"attn_k", "attention.self.key"},
                                          {"attn_v", "attention.self.value"},
                                          {"attn_output", "attention.output.dense"},
                                          {"attn_output_norm", "attention.output.LayerNorm"},
                                          {"ffn_up", "intermediate.dense"},
                                          {"ffn_down", "output.dense"},
                                          {"layer_output_norm", "output.LayerNorm"}}) {
      for (const char* part : {".weight", ".bias"}) names[gguf + part] = hf + part;
    }
  }
  return names;
}

/// Writes an opened GGUF model of float tensors as a Hugging Face folder, undoing everything that GGUF does
/// differently.
class Exporter {
 public:
  Exporter(const ModelFile& model, const TestFolder& folder)
      : model_(model),
        folder_(folder),
        arch_(model.metadata().get_string("general.architecture")),
        names_(names_of(arch_)) {}

  void write() {
    for (const NamedTensor& tensor : model_.tensors()) add(tensor);
    write_safetensors(folder_.file("model.safetensors"), stored_);
    folder_.write("config.json", config().dump());
  }

  SortedJson config() const {
    const auto number = [&](const char* key) { return model_.metadata().get_u64(arch_ + "." + key); };
    const auto real = [&](const char* key) { return model_.metadata().get_f64(arch_ + "." + key); };
    const bool tied = model_.find("output.weight") == nullptr;
    if (arch_ == "gpt2") {
      return {{"model_type", "gpt2"},
              {"n_embd", number("embedding_length")},
              {"n_layer", number("block_count")},
              {"n_head", number("attention.head_count")},
              {"n_inner", number("feed_forward_length")},
              {"n_positions", number("context_length")},
              {"layer_norm_epsilon", real("attention.layer_norm_epsilon")},
              {"tie_word_embeddings", tied}};
    }
    SortedJson out = {
        {"hidden_size", number("embedding_length")},           {"num_hidden_layers", number("block_count")},
        {"intermediate_size", number("feed_forward_length")},  {"num_attention_heads", number("attention.head_count")},
        {"max_position_embeddings", number("context_length")}, {"tie_word_embeddings", tied}};
    if (arch_ == "bert") {
      out["model_type"] = "bert";
      out["type_vocab_size"] = model_.metadata().get_u64("tokenizer.ggml.token_type_count");
      out["layer_norm_eps"] = real("attention.layer_norm_epsilon");
      return out;
    }
    out["model_type"] = arch_ == "qwen3moe" ? "qwen3_moe" : arch_;
    out["num_key_value_heads"] = number("attention.head_count_kv");
    out["head_dim"] = number("attention.key_length");
    out["rms_norm_eps"] = real("attention.layer_norm_rms_epsilon");
    out["rope_theta"] = real("rope.freq_base");
    if (arch_ == "gemma2" || arch_ == "phi3") out["sliding_window"] = number("attention.sliding_window");
    if (arch_ == "qwen3moe") {
      out["num_experts"] = number("expert_count");
      out["num_experts_per_tok"] = number("expert_used_count");
      out["moe_intermediate_size"] = number("expert_feed_forward_length");
    }
    return out;
  }

 private:
  void add(const NamedTensor& tensor) {
    const TensorView& view = tensor.view;
    Stored stored;
    stored.dtype = dtype_info(view.dtype).name;
    for (size_t i = 0; i < view.shape.rank(); ++i) stored.shape.push_back(view.shape[i]);
    stored.bytes.assign(reinterpret_cast<const char*>(view.data), view.bytes());

    std::string suffix = tensor.name, prefix;
    if (tensor.name.starts_with("blk.")) {
      const size_t dot = tensor.name.find('.', 4);
      suffix = tensor.name.substr(dot + 1);
      const std::string layers = arch_ == "gpt2"   ? "transformer.h."
                                 : arch_ == "bert" ? "encoder.layer."
                                                   : "model.layers.";
      prefix = layers + tensor.name.substr(4, dot - 3);
    }
    if (suffix.find("_exps.") != std::string::npos) {
      add_experts(stored, prefix, suffix);
      return;
    }
    stored.name = prefix + names_.at(suffix);
    if (arch_ == "llama" && suffix.starts_with("attn_q.")) unpermute(stored, "attention.head_count");
    if (arch_ == "llama" && suffix.starts_with("attn_k.")) unpermute(stored, "attention.head_count_kv");
    if (arch_ == "gemma2" && suffix.ends_with("norm.weight")) minus_one(stored);
    const bool is_linear = suffix.starts_with("attn_qkv.w") || suffix.starts_with("attn_output.w") ||
                           suffix.starts_with("ffn_up.w") || suffix.starts_with("ffn_down.w");
    if (arch_ == "gpt2" && is_linear) transpose(stored);
    stored_.push_back(std::move(stored));
  }

  void add_experts(const Stored& stack, const std::string& prefix, const std::string& suffix) {
    const std::string kind = suffix.substr(4, suffix.find("_exps") - 4);
    const size_t bytes = stack.bytes.size() / stack.shape[0];
    for (uint64_t e = 0; e < stack.shape[0]; ++e) {
      Stored one;
      one.name = fmt::format("{}mlp.experts.{}.{}_proj.weight", prefix, e, kind);
      one.dtype = stack.dtype;
      one.shape = {stack.shape[1], stack.shape[2]};
      one.bytes = stack.bytes.substr(e * bytes, bytes);
      stored_.push_back(std::move(one));
    }
  }

  /// Old row j D/2 + i comes from new row 2i + j.
  void unpermute(Stored& stored, const char* heads_key) const {
    const uint64_t n_heads = model_.metadata().get_u64(arch_ + "." + heads_key);
    const uint64_t dim = stored.shape[0] / n_heads;
    const size_t row = stored.bytes.size() / stored.shape[0];
    std::string out;
    for (uint64_t h = 0; h < n_heads; ++h) {
      for (uint64_t j = 0; j < 2; ++j) {
        for (uint64_t i = 0; i < dim / 2; ++i) out += stored.bytes.substr((h * dim + 2 * i + j) * row, row);
      }
    }
    stored.bytes = out;
  }

  static void minus_one(Stored& stored) {
    ASSERT_EQ(stored.dtype, "F32");
    for (size_t at = 0; at < stored.bytes.size(); at += sizeof(float)) {
      float value = 0.0f;
      std::memcpy(&value, stored.bytes.data() + at, sizeof value);
      // Exact, and so is adding it again, for values between 0.5 and 2.
      ASSERT_GE(value, 0.5f);
      ASSERT_LE(value, 2.0f);
      value -= 1.0f;
      std::memcpy(stored.bytes.data() + at, &value, sizeof value);
    }
  }

  static void transpose(Stored& stored) {
    const uint64_t rows = stored.shape[0], columns = stored.shape[1];
    const size_t width = stored.bytes.size() / (rows * columns);
    std::string out;
    for (uint64_t c = 0; c < columns; ++c) {
      for (uint64_t r = 0; r < rows; ++r) out += stored.bytes.substr((r * columns + c) * width, width);
    }
    stored.bytes = out;
    stored.shape = {columns, rows};
  }

  const ModelFile& model_;
  const TestFolder& folder_;
  std::string arch_;
  NameMap names_;
  std::vector<Stored> stored_;
};

void expect_same_tensors(const ModelFile& expected, const ModelFile& found) {
  EXPECT_EQ(expected.tensors().size(), found.tensors().size());
  for (const NamedTensor& tensor : expected.tensors()) {
    const NamedTensor* other = found.find(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    EXPECT_EQ(other->view.shape, tensor.view.shape) << tensor.name;
    std::vector<float> a(tensor.view.columns()), b(tensor.view.columns());
    bool same = true;
    for (uint64_t row = 0; row < tensor.view.rows(); ++row) {
      decode_row(tensor.view, row, a.data());
      decode_row(other->view, row, b.data());
      same &= std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    }
    EXPECT_TRUE(same) << tensor.name;
  }
}

class HfRoundTrip : public ::testing::TestWithParam<const char*> {};

/// A GGUF model exported to Hugging Face form comes back with the same values and the same numbers in its metadata.
TEST_P(HfRoundTrip, GivesTheSameModel) {
  const auto path = shared_path(std::string("golden/") + GetParam());
  if (!path) GTEST_SKIP() << "shared test data is missing";
  const TestFolder folder;
  const ModelFile original = open_gguf(*path);
  Exporter(original, folder).write();
  Ledger ledger;
  const ModelFile imported = open_model(folder.path().string(), ledger);
  expect_same_tensors(original, imported);
  EXPECT_GE(ledger.used(Tier::kRam, Tag::kWeights), imported.owned_bytes());
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kScratch), 0u);
  // Written tensor by tensor it is the same again.
  const auto source = open_source(folder.path().string(), ledger);
  quantize_model(*source, folder.file("converted.gguf"), {}, ledger);
  expect_same_tensors(original, open_gguf(folder.file("converted.gguf")));
  for (const auto& [key, value] : original.metadata().entries()) {
    const bool concerns_shape = key.find("attention.") != std::string::npos ||
                                key.find("_length") != std::string::npos || key.find("_count") != std::string::npos ||
                                key.find("rope.") != std::string::npos;
    // Where heads divide the width these keys only repeat the default.
    const bool repeats = key == "gpt2.attention.key_length" || key == "gpt2.attention.value_length";
    if (!concerns_shape || repeats) continue;
    ASSERT_TRUE(imported.metadata().has(key)) << key;
    if (value.type == ValueType::kBool) {
      EXPECT_EQ(imported.metadata().get_bool(key), original.metadata().get_bool(key)) << key;
    } else {
      EXPECT_EQ(static_cast<float>(imported.metadata().get_f64(key)),
                static_cast<float>(original.metadata().get_f64(key)))
          << key;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, HfRoundTrip,
                         ::testing::Values("logits/llama.gguf", "logits/llama-mha-tied-bf16.gguf",
                                           "logits/llama256-F16.gguf", "logits/qwen2.gguf", "logits/qwen3.gguf",
                                           "logits/qwen3moe.gguf", "logits/phi3.gguf", "logits/gemma2.gguf",
                                           "logits/gpt2.gguf", "embeddings/bert-mean.gguf"),
                         [](const auto& each) {
                           std::string name;
                           for (const char* c = each.param; *c != 0; ++c) {
                             if (std::isalnum(static_cast<unsigned char>(*c)) != 0) name += *c;
                           }
                           return name;
                         });

std::string floats(size_t n, float first = 0.0f) {
  std::string out;
  for (size_t i = 0; i < n; ++i) {
    const float value = first + static_cast<float>(i);
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return out;
}

SortedJson small_llama() {
  return {{"model_type", "llama"},  {"hidden_size", 8},         {"num_hidden_layers", 1},
          {"intermediate_size", 4}, {"num_attention_heads", 2}, {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5}};
}

std::string import_refusal(const TestFolder& folder, const SortedJson& config, const std::vector<Stored>& tensors) {
  folder.write("config.json", config.dump());
  write_safetensors(folder.file("model.safetensors"), tensors);
  Ledger ledger;
  try {
    (void)open_model(folder.path().string(), ledger);
  } catch (const Error& e) {
    EXPECT_EQ(ledger.used(Tier::kRam), 0u);
    return e.what();
  }
  return "no error";
}

TEST(HfCheckpoint, RefusesWhatItCannotPlace) {
  const TestFolder folder;
  const Stored norm = {"model.norm.weight", "F32", {8}, floats(8)};
  EXPECT_EQ(import_refusal(folder, small_llama(), {norm}), "no error");
  EXPECT_THAT(import_refusal(folder, small_llama(), {norm, {"model.layers.0.odd.weight", "F32", {1}, floats(1)}}),
              HasSubstr("'model.layers.0.odd.weight': expected a name of architecture llama"));
  EXPECT_THAT(import_refusal(folder, small_llama(), {norm, {"norm.weight", "F32", {8}, floats(8)}}),
              HasSubstr("expected one tensor for 'output_norm.weight'"));
  EXPECT_THAT(import_refusal(folder, small_llama(), {{"model.norm.weight", "I32", {8}, floats(8)}}),
              HasSubstr("'output_norm.weight': expected F32, F16, BF16 or F64"));
  EXPECT_THAT(import_refusal(folder, small_llama(), {{"model.norm.weight", "F8_E4M3", {8}, std::string(8, 'x')}}),
              HasSubstr("F8_E4M3"));
  EXPECT_THAT(import_refusal(folder, small_llama(), {{"model.norm.weight", "F32", {}, floats(1)}}),
              HasSubstr("one to four extents"));
  EXPECT_THAT(
      import_refusal(folder, small_llama(), {{"model.layers.0.self_attn.q_proj.weight", "F32", {6, 1}, floats(6)}}),
      HasSubstr("an even number of rows for each of 2 heads"));
}

TEST(HfCheckpoint, MissingExpertsAreNamed) {
  const TestFolder folder;
  SortedJson config = small_llama();
  config["model_type"] = "qwen3_moe";
  config["num_experts"] = 2;
  config["num_experts_per_tok"] = 1;
  config["moe_intermediate_size"] = 4;
  const auto expert = [](int e, std::vector<uint64_t> shape) {
    return Stored{fmt::format("model.layers.0.mlp.experts.{}.up_proj.weight", e), "F32", std::move(shape), floats(8)};
  };
  EXPECT_EQ(import_refusal(folder, config, {expert(1, {4, 2}), expert(0, {4, 2})}), "no error");
  EXPECT_THAT(import_refusal(folder, config, {expert(1, {4, 2})}),
              HasSubstr("'blk.0.ffn_up_exps.weight': expected 2 experts, found 1"));
  EXPECT_THAT(import_refusal(folder, config, {expert(2, {4, 2})}), HasSubstr("each of 2 experts once, found expert 2"));
  EXPECT_THAT(import_refusal(folder, config, {expert(0, {4, 2}), expert(1, {2, 4})}),
              HasSubstr("experts of one shape"));
  config["norm_topk_prob"] = false;
  EXPECT_THAT(import_refusal(folder, config, {expert(1, {4, 2})}),
              HasSubstr("'norm_topk_prob': expected true, found false"));
}

TEST(HfCheckpoint, UnalignedTensorsAreCopied) {
  const TestFolder folder;
  folder.write("config.json", small_llama().dump());
  write_safetensors(folder.file("model.safetensors"), {{"model.rotary_emb.inv_freq", "U8", {3}, "abc"},
                                                       {"lm_head.weight", "F32", {2, 2}, floats(4, 5.0f)},
                                                       {"model.embed_tokens.weight", "F32", {2, 2}, floats(4)}});
  Ledger ledger;
  const ModelFile model = open_model(folder.path().string(), ledger);
  EXPECT_EQ(model.tensors().size(), 2u);
  EXPECT_GT(model.owned_bytes(), 0u);
  float row[2];
  decode_row(model.find("output.weight")->view, 1, row);
  EXPECT_EQ(row[1], 8.0f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(model.find("output.weight")->view.data) % sizeof(float), 0u);
}

TEST(HfCheckpoint, BudgetIsAskedFirst) {
  const TestFolder folder;
  folder.write("config.json", small_llama().dump());
  write_safetensors(folder.file("model.safetensors"), {{"model.norm.weight", "BF16", {4096}, std::string(8192, 'a')}});
  Ledger ledger(4096);
  try {
    (void)open_model(folder.path().string(), ledger);
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
  }
}

TEST(HfCheckpoint, PoolingOfEmbeddingModels) {
  const TestFolder folder;
  SortedJson config = small_llama();
  config["model_type"] = "bert";
  folder.write("config.json", config.dump());
  write_safetensors(folder.file("model.safetensors"), {{"bert.embeddings.LayerNorm.weight", "F32", {8}, floats(8)}});
  std::filesystem::create_directory(folder.path() / "1_Pooling");
  folder.write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})");
  Ledger ledger;
  EXPECT_EQ(open_model(folder.path().string(), ledger).metadata().get_u64("bert.pooling_type"), 2u);
  folder.write("1_Pooling/config.json", R"({"pooling_mode_max_tokens": true})");
  EXPECT_THROW((void)open_model(folder.path().string(), ledger), Error);
}

}  // namespace
}  // namespace mneme
