#include "eval/stack_curve.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/test_data.h"
#include "eval/own_text.h"
#include "eval/stack_gains.h"
#include "weights/gguf_test_bytes.h"
#include "weights/quantize.h"
#include "weights/stack_file.h"

namespace mneme {
namespace {

const std::string kModel = source_path("models/pocket.gguf");

TEST(RankCorrelation, KnowsOrderAndTies) {
  const double a[] = {1, 2, 3, 10}, b[] = {5, 6, 7, 8}, c[] = {9, 8, 7, 6}, d[] = {1, 1, 2, 2};
  EXPECT_DOUBLE_EQ(rank_correlation(a, b), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(a, c), -1);
  EXPECT_NEAR(rank_correlation(a, d), 0.894427, 1e-6);
}

TEST(StackCurve, FallsWithSizeAndSortsByWhatItMeasures) {
  const TestFolder folder;
  const std::string path = folder.file("stack.gguf");
  Ledger ledger;
  PlanRequest request;
  request.context = 64;
  std::vector<TokenId> tokens;
  {
    const auto source = open_source(kModel, ledger);
    QuantizeOptions options;
    options.recipe = find_quant_recipe("BITSTACK");
    options.lossy = true;
    options.stack.blocks = 2;
    options.stack.order = bitstack::StackOrder::kRandom;
    quantize_model(*source, path, options, ledger);
    const auto plain = Engine::load(kModel, request, ledger);
    EXPECT_THROW(measure_stack_at(*plain, tokens, {}, 1 << 20), Error);
    tokens = own_text(*plain, 128);
  }
  PerplexityOptions options;
  options.window = 64;
  Ledger run;
  const auto engine = Engine::load(path, request, run);
  const std::vector<StackPoint> curve = measure_stack_curve(*engine, tokens, options, 3, [](size_t, size_t) {});
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[0].blocks, engine->stack()->least_blocks());
  EXPECT_EQ(curve[2].blocks, engine->stack()->n_blocks());
  EXPECT_GT(curve[0].quality.nll, curve[2].quality.nll);
  EXPECT_EQ(engine->stack()->status().loaded, engine->stack()->n_blocks());
  EXPECT_EQ(measure_stack_at(*engine, tokens, options, curve[1].bytes).quality.nll, curve[1].quality.nll);
  EXPECT_THROW(measure_stack_at(*engine, tokens, options, curve[0].bytes - 5000), Error);

  // Each second block alone, on top of all first ones: the file is sorted by these numbers afterwards.
  const auto gains = measure_stack_gains(*engine, {tokens.data(), 64}, options, [](size_t, size_t) {});
  sort_stack_by_perplexity(path, {tokens.data(), 64}, options, bitstack::StackOrder::kAverage, [](size_t, size_t) {});
  const auto sorted = bitstack::placed_blocks(open_gguf(path));
  const size_t n = gains.size();
  ASSERT_EQ(sorted.size(), 2 * n);
  for (size_t i = n + 1; i < 2 * n; ++i) {
    EXPECT_GE(gains[sorted[i - 1].id.matrix].gains[1], gains[sorted[i].id.matrix].gains[1]) << i;
  }
  Ledger again;
  const auto resorted = Engine::load(path, request, again);
  EXPECT_EQ(measure_stack_curve(*resorted, tokens, options, 2, [](size_t, size_t) {}).back().quality.nll,
            curve[2].quality.nll);
}

}  // namespace
}  // namespace mneme
