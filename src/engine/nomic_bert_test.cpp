// Nomic BERT against its definition (arXiv 2402.01613), written here in plain double precision: rotary positions by
// halves, layer norms behind the residual connections, SwiGLU, no biases in the products.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/philox.h"
#include "engine/embedding.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

using Vector = std::vector<double>;

/// Sizes and random weights; all weights are f32.
struct TinyNomic {
  static constexpr size_t kVocab = 60, kWidth = 48, kHeads = 4, kHidden = 80, kLayers = 3, kContext = 64;
  static constexpr double kRopeBase = 1000, kEps = 1e-6;
  static constexpr size_t kHeadDim = kWidth / kHeads;

  std::vector<std::pair<std::string, Shape>> shapes;
  std::map<std::string, std::vector<float>> weights;

  explicit TinyNomic(uint64_t seed) {
    PhiloxStream random(seed);
    const auto add = [&](const std::string& name, Shape shape, float mean, float deviation) {
      std::vector<float>& values = weights[name];
      for (uint64_t i = 0; i < shape.elements(); ++i) values.push_back(mean + deviation * random.next_normal());
      shapes.emplace_back(name, shape);
    };
    const auto norm = [&](const std::string& name) {
      add(name + ".weight", Shape{kWidth}, 1, 0.3f);
      add(name + ".bias", Shape{kWidth}, 0, 0.3f);
    };
    add("token_embd.weight", Shape{kVocab, kWidth}, 0, 1);
    add("token_types.weight", Shape{2, kWidth}, 0, 0.5f);
    norm("token_embd_norm");
    for (size_t i = 0; i < kLayers; ++i) {
      const std::string layer = fmt::format("blk.{}.", i);
      add(layer + "attn_qkv.weight", Shape{3 * kWidth, kWidth}, 0, 0.3f);  // large enough for attention to choose
      add(layer + "attn_output.weight", Shape{kWidth, kWidth}, 0, 0.2f);
      norm(layer + "attn_output_norm");
      add(layer + "ffn_gate.weight", Shape{kHidden, kWidth}, 0, 0.2f);
      add(layer + "ffn_up.weight", Shape{kHidden, kWidth}, 0, 0.2f);
      add(layer + "ffn_down.weight", Shape{kWidth, kHidden}, 0, 0.2f);
      norm(layer + "layer_output_norm");
    }
  }

  std::string write(const TestFolder& folder) const {
    Metadata m("tiny nomic-bert");
    m.set_string("general.architecture", "nomic-bert");
    m.set_u32("nomic-bert.context_length", kContext);
    m.set_u32("nomic-bert.embedding_length", kWidth);
    m.set_u32("nomic-bert.block_count", kLayers);
    m.set_u32("nomic-bert.feed_forward_length", kHidden);
    m.set_u32("nomic-bert.attention.head_count", kHeads);
    m.set_f32("nomic-bert.attention.layer_norm_epsilon", static_cast<float>(kEps));
    m.set_f32("nomic-bert.rope.freq_base", static_cast<float>(kRopeBase));
    m.set_u32("nomic-bert.pooling_type", 1);
    std::vector<std::string> pieces = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    while (pieces.size() < kVocab) pieces.push_back(fmt::format("\xE2\x96\x81word{}", pieces.size()));
    m.set_string("tokenizer.ggml.model", "bert");
    m.set_array_string("tokenizer.ggml.tokens", pieces);
    m.set_u32("tokenizer.ggml.unknown_token_id", 1);
    m.set_u32("tokenizer.ggml.cls_token_id", 2);
    m.set_u32("tokenizer.ggml.seperator_token_id", 3);

    std::vector<TensorInfo> tensors;
    for (const auto& [name, shape] : shapes) tensors.push_back({name, DType::kF32, shape});
    const std::string path = folder.file("nomic.gguf");
    GgufWriter writer(path, m, tensors);
    for (const auto& [name, shape] : shapes) writer.write(std::as_bytes(std::span(weights.at(name))));
    writer.finish();
    return path;
  }
};

/// The definition.
class Oracle {
 public:
  explicit Oracle(const TinyNomic& model) : model_(model) {}

  /// Rows after the last layer, one a token.
  std::vector<Vector> forward(std::span<const TokenId> tokens) const {
    std::vector<Vector> x;
    for (const TokenId token : tokens) {
      Vector row(TinyNomic::kWidth);
      for (size_t d = 0; d < row.size(); ++d) {
        row[d] =
            weight("token_embd.weight", static_cast<size_t>(token) * row.size() + d) + weight("token_types.weight", d);
      }
      x.push_back(layer_norm(row, "token_embd_norm"));
    }
    for (size_t i = 0; i < TinyNomic::kLayers; ++i) {
      const std::string layer = fmt::format("blk.{}.", i);
      const std::vector<Vector> mixed = attention(x, layer);
      for (size_t t = 0; t < x.size(); ++t) {
        x[t] = layer_norm(sum(x[t], product(layer + "attn_output.weight", mixed[t])), layer + "attn_output_norm");
        x[t] = layer_norm(sum(x[t], feed_forward(x[t], layer)), layer + "layer_output_norm");
      }
    }
    return x;
  }

  Vector mean(std::span<const TokenId> tokens) const {
    Vector out(TinyNomic::kWidth);
    for (const Vector& row : forward(tokens)) out = sum(out, row);
    for (double& v : out) v /= static_cast<double>(tokens.size());
    return out;
  }

 private:
  double weight(const std::string& name, size_t i) const { return static_cast<double>(model_.weights.at(name)[i]); }

  Vector product(const std::string& name, const Vector& x) const {
    const std::vector<float>& matrix = model_.weights.at(name);
    Vector y(matrix.size() / x.size());
    for (size_t r = 0; r < y.size(); ++r) {
      for (size_t c = 0; c < x.size(); ++c) y[r] += static_cast<double>(matrix[r * x.size() + c]) * x[c];
    }
    return y;
  }

  static Vector sum(const Vector& a, const Vector& b) {
    Vector out = a;
    for (size_t i = 0; i < a.size(); ++i) out[i] += b[i];
    return out;
  }

  Vector layer_norm(const Vector& x, const std::string& name) const {
    const auto n = static_cast<double>(x.size());
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
    double variance = 0;
    for (const double v : x) variance += (v - mean) * (v - mean) / n;
    Vector y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean) / std::sqrt(variance + TinyNomic::kEps) * weight(name + ".weight", i) +
             weight(name + ".bias", i);
    }
    return y;
  }

  /// Turns channel d of a head with channel d + half of it, by position * base^(-2 d / head_dim).
  static Vector rotate(const Vector& head, size_t position) {
    const size_t half = head.size() / 2;
    Vector out(head.size());
    for (size_t d = 0; d < half; ++d) {
      const double exponent = -2.0 * static_cast<double>(d) / static_cast<double>(head.size());
      const double angle = static_cast<double>(position) * std::pow(TinyNomic::kRopeBase, exponent);
      out[d] = head[d] * std::cos(angle) - head[d + half] * std::sin(angle);
      out[d + half] = head[d] * std::sin(angle) + head[d + half] * std::cos(angle);
    }
    return out;
  }

  /// Every token attends to every token; out: heads side by side.
  std::vector<Vector> attention(const std::vector<Vector>& x, const std::string& layer) const {
    constexpr size_t kDim = TinyNomic::kHeadDim;
    std::vector<Vector> qkv;
    for (const Vector& row : x) qkv.push_back(product(layer + "attn_qkv.weight", row));
    const auto part = [&](size_t token, size_t which, size_t head) {
      const auto begin = qkv[token].begin() + static_cast<long>(which * TinyNomic::kWidth + head * kDim);
      return Vector(begin, begin + kDim);
    };
    std::vector<Vector> out(x.size(), Vector(TinyNomic::kWidth));
    for (size_t head = 0; head < TinyNomic::kHeads; ++head) {
      for (size_t t = 0; t < x.size(); ++t) {
        const Vector q = rotate(part(t, 0, head), t);
        Vector scores(x.size());
        for (size_t s = 0; s < x.size(); ++s) {
          const Vector k = rotate(part(s, 1, head), s);
          scores[s] = std::exp(std::inner_product(q.begin(), q.end(), k.begin(), 0.0) / std::sqrt(double{kDim}));
        }
        const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
        for (size_t s = 0; s < x.size(); ++s) {
          const Vector v = part(s, 2, head);
          for (size_t d = 0; d < kDim; ++d) out[t][head * kDim + d] += scores[s] / total * v[d];
        }
      }
    }
    return out;
  }

  /// down(silu(gate x) * up x)
  Vector feed_forward(const Vector& x, const std::string& layer) const {
    const Vector gate = product(layer + "ffn_gate.weight", x);
    Vector hidden = product(layer + "ffn_up.weight", x);
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] *= gate[i] / (1 + std::exp(-gate[i]));
    return product(layer + "ffn_down.weight", hidden);
  }

  const TinyNomic& model_;
};

void expect_near(std::span<const float> got, const Vector& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t d = 0; d < got.size(); ++d) EXPECT_NEAR(static_cast<double>(got[d]), wanted[d], 2e-4) << d;
}

std::vector<std::vector<TokenId>> random_texts() {
  PhiloxStream random(5);
  std::vector<std::vector<TokenId>> texts;
  for (const size_t n : {1, 2, 7, 19, 33}) {
    std::vector<TokenId> text;
    for (size_t i = 0; i < n; ++i) text.push_back(static_cast<TokenId>(random.next_below(TinyNomic::kVocab)));
    texts.push_back(std::move(text));
  }
  return texts;
}

class NomicBert : public testing::Test {
 protected:
  NomicBert() : weights_(3), oracle_(weights_), engine_(Engine::load(weights_.write(folder_), {}, ledger_)) {}

  TestFolder folder_;
  TinyNomic weights_;
  Oracle oracle_;
  Ledger ledger_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(NomicBert, MeanEmbeddingIsTheDefinition) {
  for (const std::vector<TokenId>& text : random_texts()) {
    SCOPED_TRACE(text.size());
    const Vector wanted = oracle_.mean(text);
    expect_near(embed(*engine_, text, {std::nullopt, false}), wanted);  // the model says that it pools the mean
    const double length = std::sqrt(std::inner_product(wanted.begin(), wanted.end(), wanted.begin(), 0.0));
    Vector unit = wanted;
    for (double& v : unit) v /= length;
    expect_near(embed(*engine_, text, {Pooling::kMean, true}), unit);
    const std::vector<Vector> rows = oracle_.forward(text);
    expect_near(embed(*engine_, text, {Pooling::kCls, false}), rows.front());
    expect_near(embed(*engine_, text, {Pooling::kLast, false}), rows.back());
  }
}

TEST_F(NomicBert, TextsOfOneBatchDoNotSeeEachOther) {
  std::vector<TokenId> tokens;
  std::vector<int32_t> positions;
  std::vector<SequenceSlice> slices;
  const std::vector<std::vector<TokenId>> texts = random_texts();
  for (const std::vector<TokenId>& text : texts) {
    slices.push_back({nullptr, tokens.size(), text.size()});
    tokens.insert(tokens.end(), text.begin(), text.end());
    for (size_t i = 0; i < text.size(); ++i) positions.push_back(static_cast<int32_t>(i));
  }
  const Workspace::Scope scope(engine_->workspace());
  const float* hidden = engine_->model().forward({tokens, positions, slices}, engine_->workspace());
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE(i);
    const std::vector<Vector> rows = oracle_.forward(texts[i]);
    for (size_t t = 0; t < rows.size(); ++t) {
      expect_near(std::span(hidden + (slices[i].begin + t) * TinyNomic::kWidth, TinyNomic::kWidth), rows[t]);
    }
  }
}

}  // namespace
}  // namespace mneme
