#include "model/adapters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/philox.h"
#include "base/test_error.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

using testing::HasSubstr;

constexpr size_t kWidth = 32, kHidden = 64, kVocabulary = 20;

struct Matrix {
  std::string name;
  Shape shape;
  std::vector<float> values;
};

Matrix random_matrix(const std::string& name, Shape shape, uint64_t seed, float size = 1) {
  Matrix m{name, shape, std::vector<float>(shape.elements())};
  PhiloxStream random(seed);
  for (float& v : m.values) v = size * random.next_normal() / std::sqrt(static_cast<float>(shape.from_last(0)));
  return m;
}

void write(const std::string& path, const Metadata& metadata, const std::vector<Matrix>& matrices) {
  std::vector<NamedTensor> tensors;
  for (const Matrix& m : matrices) {
    tensors.push_back({m.name, {DType::kF32, m.shape, reinterpret_cast<const std::byte*>(m.values.data())}});
  }
  write_gguf(path, metadata, tensors);
}

/// A llama of one layer in f32, and adapters for it.
class AdaptersTest : public testing::Test {
 protected:
  AdaptersTest() {
    for (const auto& [key, value] :
         std::initializer_list<std::pair<const char*, uint32_t>>{{"block_count", 1},
                                                                 {"context_length", 16},
                                                                 {"embedding_length", kWidth},
                                                                 {"feed_forward_length", kHidden},
                                                                 {"attention.head_count", 4},
                                                                 {"attention.head_count_kv", 2},
                                                                 {"vocab_size", kVocabulary}}) {
      metadata_.set_u32(std::string("llama.") + key, value);
    }
    metadata_.set_string("general.architecture", "llama");
    metadata_.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    uint64_t seed = 0;
    const auto add = [&](const char* name, Shape shape) { base_.push_back(random_matrix(name, shape, ++seed)); };
    add("token_embd.weight", {kVocabulary, kWidth});
    add("blk.0.attn_norm.weight", {kWidth});
    add("blk.0.attn_q.weight", {kWidth, kWidth});
    add("blk.0.attn_k.weight", {kWidth / 2, kWidth});
    add("blk.0.attn_v.weight", {kWidth / 2, kWidth});
    add("blk.0.attn_output.weight", {kWidth, kWidth});
    add("blk.0.ffn_norm.weight", {kWidth});
    add("blk.0.ffn_gate.weight", {kHidden, kWidth});
    add("blk.0.ffn_up.weight", {kHidden, kWidth});
    add("blk.0.ffn_down.weight", {kWidth, kHidden});
    add("output_norm.weight", {kWidth});
    write(folder_.file("base.gguf"), metadata_, base_);
  }

  /// An adapter with a pair of random factors of this rank for each target.
  std::vector<Matrix> factors(const std::vector<std::string>& targets, size_t rank, uint64_t seed) {
    std::vector<Matrix> list;
    for (const std::string& target : targets) {
      const auto w = std::find_if(base_.begin(), base_.end(), [&](const Matrix& m) { return m.name == target; });
      list.push_back(random_matrix(target + ".lora_a", {rank, w->shape[1]}, ++seed));
      list.push_back(random_matrix(target + ".lora_b", {w->shape[0], rank}, ++seed));
    }
    return list;
  }

  std::string write_adapter(const std::string& name, const std::vector<Matrix>& list, float alpha = 4,
                            const std::string& architecture = "llama") {
    Metadata metadata;
    metadata.set_string("general.type", "adapter");
    metadata.set_string("general.architecture", architecture);
    metadata.set_string("adapter.type", "lora");
    metadata.set_f32("adapter.lora.alpha", alpha);
    write(folder_.file(name), metadata, list);
    return folder_.file(name);
  }

  /// W + factor * alpha / r * B A for the targets of an adapter.
  static void merge(std::vector<Matrix>& model, const std::vector<Matrix>& list, float alpha, float factor) {
    for (size_t i = 0; i < list.size(); i += 2) {
      const Matrix &a = list[i], &b = list[i + 1];
      for (Matrix& w : model) {
        if (w.name + ".lora_a" != a.name) continue;
        const size_t rank = a.shape[0], columns = a.shape[1];
        for (size_t r = 0; r < w.shape[0]; ++r) {
          for (size_t c = 0; c < columns; ++c) {
            double sum = 0;
            for (size_t k = 0; k < rank; ++k)
              sum += static_cast<double>(b.values[r * rank + k]) * a.values[k * columns + c];
            w.values[r * columns + c] += static_cast<float>(sum * factor * alpha / static_cast<double>(rank));
          }
        }
      }
    }
  }

  /// Logits of all positions.
  static std::vector<float> logits(const std::string& path, const std::vector<AdapterChoice>& choices) {
    const ModelFile file = open_gguf(path);
    Ledger ledger;
    const auto model = Model::build(file, ledger);
    Adapters adapters(choices, file, *model);
    model->weights.load(ledger, true, 0, [](uint64_t) {});
    adapters.load(ledger);
    const std::vector<int32_t> tokens{3, 1, 4, 1, 5, 9}, positions{0, 1, 2, 3, 4, 5};
    const StateOptions options{KvPolicy::parse("f32"), 16, 16};
    const auto state = model->make_state(options, ledger);
    Workspace workspace(ledger, model->workspace_bytes(tokens.size(), tokens.size()));
    const SequenceSlice slice{state.get(), 0, tokens.size()};
    const Workspace::Scope scope(workspace);
    const float* hidden = model->forward({tokens, positions, {&slice, 1}}, workspace);
    const std::vector<size_t> rows{0, 1, 2, 3, 4, 5};
    std::vector<float> out(rows.size() * model->n_logits());
    model->logits(hidden, rows, workspace, out.data());
    return out;
  }

  static double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      sum += std::pow(a[i] - b[i], 2);
      size += std::pow(b[i], 2);
    }
    return std::sqrt(sum / size);
  }

  TestFolder folder_;
  Metadata metadata_;
  std::vector<Matrix> base_;
};

/// Two adapters on top of a base give what the base gives with their products merged into its matrices: q, k and v and
/// gate and up, which share a loop, and the ones that run alone.
TEST_F(AdaptersTest, StackedAdaptersEqualMergedWeights) {
  const auto first = factors({"blk.0.attn_q.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight"}, 3, 100);
  const auto second = factors({"blk.0.attn_v.weight", "blk.0.attn_output.weight", "blk.0.ffn_gate.weight",
                               "blk.0.ffn_up.weight", "blk.0.attn_k.weight"},
                              2, 200);
  const std::string one = write_adapter("one.gguf", first, 6), two = write_adapter("two.gguf", second, 0);
  std::vector<Matrix> merged = base_;
  merge(merged, first, 6, 0.5f);
  merge(merged, second, 2, 1);  // without an alpha the factors count as they are
  write(folder_.file("merged.gguf"), metadata_, merged);

  const std::string base = folder_.file("base.gguf");
  const auto plain = logits(base, {}), expected = logits(folder_.file("merged.gguf"), {});
  EXPECT_GT(distance(plain, expected), 0.1);
  EXPECT_LT(distance(logits(base, {AdapterChoice::parse(one + ":0.5"), {two, 1}}), expected), 1e-2);
  EXPECT_LT(distance(logits(base, {{one, 0.0f}}), plain), 1e-6);
  EXPECT_GT(distance(logits(base, {{one, 0.5f}}), expected), 0.05);
}

TEST_F(AdaptersTest, RefusesWhatDoesNotFit) {
  const ModelFile base = open_gguf(folder_.file("base.gguf"));
  Ledger ledger;
  const auto model = Model::build(base, ledger);
  const auto why = [&](const std::string& path) {
    const AdapterChoice choice{path, 1};
    return error_of([&] { Adapters({&choice, 1}, base, *model); });
  };
  const std::vector<std::string> q{"blk.0.attn_q.weight"};
  auto good = factors(q, 2, 1);
  EXPECT_THAT(why(folder_.file("base.gguf")), HasSubstr("general.type"));
  EXPECT_THAT(why(write_adapter("a.gguf", good, 4, "qwen2")), HasSubstr("for qwen2"));
  EXPECT_THAT(why(write_adapter("b.gguf", {good[0]})), HasSubstr("both factors"));
  EXPECT_THAT(why(write_adapter("c.gguf", {good[0], random_matrix(good[1].name, {kWidth, 3}, 1)})),
              HasSubstr("one rank"));
  EXPECT_THAT(why(write_adapter("d.gguf", {random_matrix(good[0].name, {2, kWidth + 1}, 1), good[1]})),
              HasSubstr("[2, 33]"));
  for (Matrix& m : good) m.name.replace(m.name.find("blk.0"), 5, "blk.7");
  EXPECT_THAT(why(write_adapter("e.gguf", good)), HasSubstr("blk.7.attn_q.weight"));
  EXPECT_THAT(why(write_adapter("f.gguf", factors({"token_embd.weight"}, 2, 1))), HasSubstr("token_embd.weight"));
  EXPECT_THROW(AdapterChoice::parse("x.gguf:loud"), Error);
  EXPECT_THROW(AdapterChoice::parse(":1"), Error);

  auto broken = factors(q, 2, 1);
  broken[1].values[7] = NAN;
  const AdapterChoice choice{write_adapter("g.gguf", broken), 1};
  Adapters adapters({&choice, 1}, base, *model);
  EXPECT_THROW(adapters.load(ledger), Error);
}

}  // namespace
}  // namespace mneme
