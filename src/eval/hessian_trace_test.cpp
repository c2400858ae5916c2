#include "eval/hessian_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/parallel.h"
#include "base/philox.h"
#include "base/test_data.h"
#include "base/test_error.h"
#include "eval/trace_example.h"
#include "train/optim/optimizer.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

using namespace train;

/// The estimate of each matrix is within a tenth of the exact trace of its block, or, where traces of other matrices
/// drown it, within four of the standard errors that it states.
TEST(HessianTrace, IsNearTheExactTrace) {
  set_n_threads(1);  // products of a few values
  TraceExample<double> net;
  net.descend(2000, 0.1);
  const std::vector<double> before(net.model.parameters().all().front().value,
                                   net.model.parameters().all().front().value + 13 * 8);
  TraceOptions options;
  options.probes = 2000;
  options.step = 1e-4;
  const auto found = net.estimate(options);
  EXPECT_EQ(found.size(), 1u + 2 * 7) << "matrices alone";
  EXPECT_TRUE(std::equal(before.begin(), before.end(), net.model.parameters().all().front().value));
  double all = 0, all_found = 0;
  for (Parameter<double>& p : net.model.parameters().all()) {
    if (!p.is_matrix()) continue;
    const auto n = static_cast<double>(p.size());
    const double exact = net.exact_trace(p) / n;
    const TraceEstimate& estimate = found.at(p.name);
    EXPECT_LT(std::abs(estimate.mean - exact), std::max(0.1 * std::abs(exact), 4 * estimate.error)) << p.name;
    all += exact * n;
    all_found += estimate.mean * n;
  }
  EXPECT_NEAR(all_found, all, 0.05 * std::abs(all));
}

/// Every matrix of a model that was trained here has a trace, those of f32 are near those of more probes, and what the
/// training engine can't open is said.
TEST(HessianTrace, OfATrainedModel) {
  std::vector<int32_t> tokens;
  PhiloxStream random(2);
  for (size_t i = 0; i < 65; ++i) tokens.push_back(static_cast<int32_t>(300 + random.next_below(3000)));
  Ledger ledger;
  const std::string path = source_path("models/pocket-mini.gguf");
  const auto traces = [&](size_t n_tokens, uint64_t seed) {
    TraceOptions options;
    options.probes = 4;
    options.seed = seed;
    return hessian_traces(path, std::span(tokens).first(n_tokens), {32, 2}, options, ledger, [](size_t, size_t) {});
  };
  const HessianTraces found = traces(65, 1), again = traces(65, 1), other = traces(65, 9), half = traces(33, 1);
  const ModelFile file = open_gguf(path);
  size_t n = 0;
  double sum = 0, other_sum = 0;
  for (const NamedTensor& tensor : file.tensors()) {
    if (tensor.view.rows() == 1) continue;
    ++n;
    ASSERT_TRUE(found.mean_trace.contains(tensor.name)) << tensor.name;
    EXPECT_GE(found.mean_trace.at(tensor.name), 0);
    sum += found.mean_trace.at(tensor.name);
    other_sum += other.mean_trace.at(tensor.name);
  }
  EXPECT_EQ(found.mean_trace.size(), n);
  EXPECT_EQ(found.mean_trace, again.mean_trace) << "signs are a function of the seed";
  EXPECT_NE(found.mean_trace, other.mean_trace);
  EXPECT_NE(found.mean_trace, half.mean_trace) << "both windows are read";
  EXPECT_GT(sum, 0);
  EXPECT_LT(std::abs(sum - other_sum), 0.5 * sum);
  EXPECT_THAT(error_of([&] { traces(16, 1); }), testing::HasSubstr("17 tokens or more, found 16"));

  const TestFolder folder;
  Metadata metadata("test");
  metadata.set_string("general.architecture", "qwen2");
  const std::vector<float> values(64, 1.0f);
  const std::vector<NamedTensor> tensors = {
      {"token_embd.weight", {DType::kF32, {8, 8}, reinterpret_cast<const std::byte*>(values.data())}}};
  write_gguf(folder.file("other.gguf"), metadata, tensors);
  EXPECT_THAT(
      error_of([&] { hessian_traces(folder.file("other.gguf"), tokens, {}, {}, ledger, [](size_t, size_t) {}); }),
      testing::HasSubstr("expected architecture llama, found qwen2"));
}

}  // namespace
}  // namespace mneme
