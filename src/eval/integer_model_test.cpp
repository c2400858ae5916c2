#include "eval/integer_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/error.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "base/test_data.h"
#include "engine/engine.h"
#include "eval/divergence.h"
#include "eval/own_text.h"

namespace mneme::integer {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kWindow = 96;

std::unique_ptr<Engine> load(const std::string& path, Ledger& ledger) {
  PlanRequest request;
  request.context = 2 * kWindow;
  return Engine::load(path, request, ledger);
}

std::string refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// The smaller shipped model and a text of its own, of which one half sets ranges.
class IntegerModel : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = std::make_unique<Shared>();
    Shared& s = *shared_;
    s.engine = load(source_path("models/pocket-mini.gguf"), s.ledger);
    s.tokens = own_text(*s.engine, 6 * kWindow);
    s.model = convert(*s.engine, std::span(s.tokens).first(4 * kWindow), {kWindow, 4}, [](uint64_t, uint64_t) {});
  }
  static void TearDownTestSuite() { shared_.reset(); }

  static Engine& engine() { return *shared_->engine; }
  static Model& model() { return shared_->model; }
  static std::span<const TokenId> scored() { return std::span(shared_->tokens).last(2 * kWindow); }
  static std::span<const TokenId> window() { return scored().first(kWindow); }

 private:
  struct Shared {
    Ledger ledger;
    std::unique_ptr<Engine> engine;
    std::vector<TokenId> tokens;
    Model model;
  };
  static inline std::unique_ptr<Shared> shared_;
};

std::vector<float> reals(const std::vector<int32_t>& logits) {
  std::vector<float> out(logits.begin(), logits.end());
  for (float& x : out) x /= static_cast<float>(kOne);
  return out;
}

TEST_F(IntegerModel, AnswersNearlyAsTheModel) {
  const auto compare = [&](const WindowLogits& logits) {
    return divergence(engine(), logits, scored(), {kWindow, 0}, [](uint64_t, uint64_t) {});
  };
  const Divergence integers =
      compare([&](std::span<const TokenId> w, size_t first) { return reals(integer_logits(model(), w, first)); });
  const Divergence simulated =
      compare([&](std::span<const TokenId> w, size_t first) { return simulated_logits(model(), w, first); });
  EXPECT_EQ(integers.n_scored, kWindow);
  EXPECT_LT(integers.kl, 0.15);
  EXPECT_GT(integers.kl, 0);
  EXPECT_GT(integers.same_top, 0.8);
  EXPECT_LT(std::abs(integers.kl - simulated.kl), 0.02);
}

TEST_F(IntegerModel, LayersAreTheSimulatedOnesUpToTwoSteps) {
  const auto residuals = integer_residuals(model(), window());
  ASSERT_EQ(residuals.size(), model().layers.size() + 1);
  for (size_t i = 0; i < model().layers.size(); ++i) {
    const PointCodes a = integer_layer(model(), i, residuals[i]), b = simulated_layer(model(), i, residuals[i]);
    EXPECT_EQ(a.output, residuals[i + 1]) << i;
    for (size_t p = 0; p < kPoints; ++p) {
      ASSERT_EQ(a.codes[p].size(), b.codes[p].size());
      ASSERT_FALSE(a.codes[p].empty());
      int32_t most = 0, largest = 0;
      for (size_t j = 0; j < a.codes[p].size(); ++j) {
        most = std::max(most, std::abs(a.codes[p][j] - b.codes[p][j]));
        largest = std::max(largest, std::abs(a.codes[p][j]));
      }
      EXPECT_LE(most, 2) << "layer " << i << ", point " << p;
      EXPECT_LE(largest, 127);
      EXPECT_GT(largest, 16) << "layer " << i << ", point " << p << ": the range is used";
    }
    // The stream itself has 32 bits; roundings that fell the other way add up to a few steps of its range in 8.
    const double step =
        std::ldexp(static_cast<double>(scale_of(model().ranges.layers[i].output)), model().residual_bits);
    double squares = 0;
    for (size_t j = 0; j < a.output.size(); ++j) {
      const double difference = (static_cast<double>(a.output[j]) - static_cast<double>(b.output[j])) / step;
      ASSERT_LE(std::abs(difference), 4) << i;
      squares += difference * difference;
    }
    EXPECT_LE(std::sqrt(squares / static_cast<double>(a.output.size())), 0.6) << i;
  }
}

TEST_F(IntegerModel, LaterTokensAndThreadsDoNotMatter) {
  const std::vector<int32_t> all = integer_logits(model(), window(), 1);
  const size_t n_vocab = model().n_vocab;
  ASSERT_EQ(all.size(), (kWindow - 1) * n_vocab);
  const std::vector<int32_t> part = integer_logits(model(), window().first(40), 30);
  ASSERT_EQ(part.size(), 10 * n_vocab);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + static_cast<long>(29 * n_vocab)));
  const int threads = n_threads();
  set_n_threads(1);
  const std::vector<int32_t> alone = integer_logits(model(), window(), 1);
  set_n_threads(threads);
  EXPECT_EQ(alone, all);
}

TEST_F(IntegerModel, HugeResidualsAreLimitedAndNothingOverflows) {
  PhiloxStream random(4);
  std::vector<int32_t> x(4 * model().width);
  for (int32_t& value : x) value = random.next_u32() % 2 == 0 ? 2147483647 : -2147483647;
  for (size_t j = 0; j < model().width; ++j) x[j] = 0;  // and a token of nothing
  for (size_t i = 0; i < model().layers.size(); ++i) {
    const PointCodes out = integer_layer(model(), i, x);
    for (const auto& codes : out.codes) {
      for (const int32_t code : codes) ASSERT_LE(std::abs(code), 127);
    }
    for (size_t j = 0; j < model().width; ++j) {
      EXPECT_EQ(out.codes[static_cast<size_t>(Point::kAttentionInput)][j], 0);
    }
  }
}

TEST_F(IntegerModel, NormsOfSmallRowsKnowTheirEpsilon) {
  // Values of a third of sqrt(epsilon): without it the codes would be three times as large.
  const double unit = std::ldexp(std::sqrt(static_cast<double>(model().norm_eps)) / 3, model().residual_bits);
  std::vector<int32_t> x(model().width);
  for (size_t j = 0; j < x.size(); ++j) x[j] = static_cast<int32_t>(j % 2 == 0 ? unit : -unit);
  const auto point = static_cast<size_t>(Point::kAttentionInput);
  const std::vector<int32_t> a = integer_layer(model(), 0, x).codes[point],
                             b = simulated_layer(model(), 0, x).codes[point];
  int32_t largest = 0;
  for (size_t j = 0; j < a.size(); ++j) {
    EXPECT_LE(std::abs(a[j] - b[j]), 1) << j;
    largest = std::max(largest, std::abs(a[j]));
  }
  EXPECT_GT(largest, 3);
}

TEST_F(IntegerModel, DeadRangesCountAsOneAndOthersAreRefused) {
  const Ranges before = model().ranges;
  Ranges dead = before;
  dead.layers[1].points[static_cast<size_t>(Point::kHidden)] = 0;
  set_ranges(model(), dead);
  EXPECT_EQ(model().ranges.layers[1].points[static_cast<size_t>(Point::kHidden)], 1);
  EXPECT_EQ(integer_logits(model(), window(), kWindow - 1).size(), model().n_vocab);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    dead.layers[1].points[0] = bad;
    EXPECT_THAT(refusal([&] { set_ranges(model(), dead); }), HasSubstr("finite range"));
  }
  set_ranges(model(), before);
}

TEST_F(IntegerModel, WindowsAndTextsAreChecked) {
  const std::vector<TokenId> long_window(kWindow + 1, 5), outside = {1, static_cast<TokenId>(model().n_vocab)};
  EXPECT_THAT(refusal([&] { (void)integer_logits(model(), long_window, 1); }), HasSubstr("1 to 96 tokens"));
  EXPECT_THAT(refusal([&] { (void)integer_logits(model(), outside, 1); }), HasSubstr("tokens below 4096"));
  EXPECT_THAT(refusal([&] { (void)integer_logits(model(), std::vector<TokenId>{1, -1}, 1); }), HasSubstr("found -1"));
  EXPECT_NE(refusal([&] { (void)integer_logits(model(), {}, 1); }), "");
  EXPECT_NE(refusal([&] { (void)integer_logits(model(), window(), 0); }), "");
  EXPECT_NE(refusal([&] { (void)simulated_logits(model(), long_window, 1); }), "");
  const auto none = [](uint64_t, uint64_t) {};
  EXPECT_THAT(refusal([&] { (void)convert(engine(), {}, {kWindow, 4}, none); }), HasSubstr("found none"));
  EXPECT_THAT(refusal([&] { (void)convert(engine(), window(), {4096, 4}, none); }), HasSubstr("2 to 4095"));
  // A text shorter than a window will do.
  EXPECT_EQ(convert(engine(), window().first(1), {kWindow, 4}, none).layers.size(), model().layers.size());
}

TEST(IntegerModels, OtherArchitecturesAreRefusedInOneLine) {
  const auto path = shared_path("golden/logits/gemma2.gguf");
  if (!path) GTEST_SKIP() << "shared data is missing";
  Ledger ledger;
  PlanRequest request;
  request.context = 16;
  const auto engine = Engine::load(*path, request, ledger);
  const std::vector<TokenId> tokens = {1, 2, 3};
  EXPECT_THAT(refusal([&] {
                (void)convert(*engine, tokens, {16, 1}, [](uint64_t, uint64_t) {});
              }),
              HasSubstr("expected architecture llama, found gemma2"));
}

TEST(IntegerModels, AModelWithItsOwnOutputMatrixAnswersNearlyAsBefore) {
  const auto path = shared_path("golden/logits/llama.gguf");
  if (!path) GTEST_SKIP() << "shared data is missing";
  Ledger ledger;
  const auto engine = load(*path, ledger);
  ASSERT_NE(engine->file().find("output.weight"), nullptr);
  PhiloxStream random(2);
  std::vector<TokenId> tokens(64);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.next_below(engine->model().hyper.n_vocab));
  if (engine->tokenizer().adds_bos()) tokens.front() = *engine->tokenizer().bos();
  const Model model = convert(*engine, tokens, {64, 1}, [](uint64_t, uint64_t) {});
  EXPECT_FALSE(model.table.empty());
  const std::vector<float> exact = window_logits(*engine, tokens, 1), found = reals(integer_logits(model, tokens, 1));
  ASSERT_EQ(exact.size(), found.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(static_cast<double>(exact[i] - found[i]), 2);
    norm += std::pow(static_cast<double>(exact[i]), 2);
  }
  EXPECT_LT(std::sqrt(error / norm), 0.1);
}

TEST(IntegerModels, RowsBecomeCodesWithinHalfAStep) {
  PhiloxStream random(1);
  std::vector<float> values(8 * 50);
  for (float& x : values) x = random.next_normal();
  std::fill_n(values.begin(), 50, 0.0f);          // a dead row
  std::fill_n(values.begin() + 50, 50, -0.25f);   // a constant one
  std::fill_n(values.begin() + 100, 50, 1e-42f);  // one of denormals
  const Matrix m = quantise(values, 50, "w");
  EXPECT_EQ(m.rows, 8u);
  EXPECT_EQ(m.scales[0], 1);
  for (size_t i = 0; i < values.size(); ++i) {
    const float scale = m.scales[i / 50];
    EXPECT_LE(std::abs(values[i] - scale * static_cast<float>(m.codes[i])), 0.50001f * scale) << i;
  }
  for (size_t j = 0; j < 50; ++j) {
    EXPECT_EQ(m.codes[j], 0);
    EXPECT_EQ(m.codes[50 + j], -127);
    EXPECT_EQ(m.codes[100 + j], 0);
  }
  for (size_t r = 3; r < 8; ++r) {
    const auto [low, high] = std::minmax_element(m.codes.begin() + static_cast<long>(50 * r),
                                                 m.codes.begin() + static_cast<long>(50 * r + 50));
    EXPECT_EQ(std::max<int>(-*low, *high), 127);
  }
  values[321] = std::nanf("");
  EXPECT_THAT(refusal([&] { (void)quantise(values, 50, "blk.0.w"); }), HasSubstr("blk.0.w: expected finite"));
  EXPECT_THAT(refusal([&] { (void)quantise(values, 50, "w"); }), HasSubstr("row 6, column 21"));
  const std::vector<float> wide(kMostProducts + 1, 1.0f);
  EXPECT_THAT(refusal([&] { (void)quantise(wide, wide.size(), "w"); }), HasSubstr("fit a sum of 32 bits"));
  EXPECT_EQ(quantise(std::span(wide).first(kMostProducts), kMostProducts, "w").rows, 1u);
}

TEST_F(IntegerModel, OwnTextRepeatsAndBeginsAnywhere) {
  OwnTextOptions how;
  how.first = OwnTextOptions::First::kVocabulary;
  how.piece = 16;
  const std::vector<TokenId> text = own_text(engine(), 128, how);
  EXPECT_EQ(text.size(), 128u);
  EXPECT_EQ(own_text(engine(), 128, how), text);
  EXPECT_EQ(own_text(engine(), 50, how), std::vector<TokenId>(text.begin(), text.begin() + 50));
  how.seed = 2;
  EXPECT_NE(own_text(engine(), 128, how), text);
  // Behind each BOS stands a normal token, and not always the same.
  const TokenId bos = *engine().tokenizer().bos();
  std::vector<TokenId> firsts;
  size_t last = 0;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] != bos) continue;
    EXPECT_LE(i - last, 16u);
    last = i;
    EXPECT_EQ(engine().tokenizer().kind(text[i + 1]), TokenKind::kNormal);
    firsts.push_back(text[i + 1]);
  }
  EXPECT_GE(firsts.size(), 8u);
  std::sort(firsts.begin(), firsts.end());
  EXPECT_GE(std::unique(firsts.begin(), firsts.end()) - firsts.begin(), 6);
  how.piece = 2;
  EXPECT_THAT(refusal([&] { (void)own_text(engine(), 8, how); }), HasSubstr("pieces of more than 2 tokens"));
}

}  // namespace
}  // namespace mneme::integer
