#include "eval/hessian_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/parallel.h"
#include "base/philox.h"
#include "base/test_data.h"
#include "base/test_error.h"
#include "train/optim/optimizer.h"
#include "train/test_batch.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

using namespace train;

LlamaSizes tiny_sizes() {
  LlamaSizes sizes;
  sizes.vocabulary = 13;
  sizes.width = 8;
  sizes.n_layers = 2;
  sizes.n_heads = 2;
  sizes.n_kv_heads = 1;
  sizes.ffn_width = 12;
  sizes.context = 16;
  return sizes;
}

/// A tiny model with large weights and a batch.
template <typename T>
struct Tiny {
  explicit Tiny() : model(ledger, tiny_sizes(), GemmFormat::kFull), data(13, {0, 7, 20}, 3) {
    model.initialise(3);
    for (auto& p : model.parameters().all()) {
      for (size_t i = 0; i < p.size(); ++i) p.value[i] *= p.role == Role::kNorm ? T{1} : T{12};
    }
    executor = std::make_unique<Executor<T>>(ledger, model.program(), model.parameter_list());
  }
  /// Descends until most of the loss is gone: there the Hessian is nearly positive, as that of a trained model.
  void descend(size_t n_steps, T rate) {
    for (size_t step = 0; step < n_steps; ++step) {
      model.parameters().start_step();
      executor->train(data.view());
      for (auto& p : model.parameters().all()) {
        for (size_t i = 0; i < p.size(); ++i) p.value[i] -= rate * p.grad[i];
      }
    }
  }
  std::map<std::string, TraceEstimate> estimate(const TraceOptions& options) {
    const std::vector<Batch> batches = {data.view()};
    return estimate_traces<T>(ledger, model, *executor, batches, options, [](size_t, size_t) {});
  }

  Ledger ledger;
  LlamaModel<T> model;
  RandomBatch data;
  std::unique_ptr<Executor<T>> executor;
};

/// Mean of the diagonal of the Hessian of a matrix, one finite difference of gradients a weight.
double exact_mean(Tiny<double>& net, Parameter<double>& p) {
  constexpr double kStep = 1e-5;
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double saved = p.value[i];
    double gradient[2];
    for (const int side : {0, 1}) {
      p.value[i] = saved + (side == 0 ? kStep : -kStep);
      net.model.parameters().start_step();
      net.executor->train(net.data.view());
      gradient[side] = p.grad[i];
    }
    p.value[i] = saved;
    sum += (gradient[0] - gradient[1]) / (2 * kStep);
  }
  return sum / static_cast<double>(p.size());
}

/// The estimate of each matrix is within a tenth of the exact trace of its block, or, where traces of other matrices
/// drown it, within four of the standard errors that it states.
TEST(HessianTrace, IsNearTheExactTrace) {
  set_n_threads(1);  // products of a few values
  Tiny<double> net;
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
    const double exact = exact_mean(net, p);
    const TraceEstimate& estimate = found.at(p.name);
    EXPECT_LT(std::abs(estimate.mean - exact), std::max(0.1 * std::abs(exact), 4 * estimate.error)) << p.name;
    all += exact * static_cast<double>(p.size());
    all_found += estimate.mean * static_cast<double>(p.size());
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
