#include "eval/up_cycling.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numbers>

#include "base/philox.h"
#include "engine/sequence_logits.h"
#include "train/export_gguf.h"
#include "train/ops/gemm.h"
#include "train/ops/packed_product.h"
#include "train/optim/optimizer.h"
#include "train/sampler.h"
#include "train/tape/executor.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

using namespace train;

constexpr int32_t kFirstSymbol = 100, kFirstTopic = 60;
constexpr size_t kHeldOutSequences = 16;
constexpr uint64_t kHeldOut = uint64_t{1} << 40;  ///< Streams from here on are held out.

LlamaSizes sizes_of(size_t vocabulary) {
  LlamaSizes sizes;
  sizes.vocabulary = vocabulary;
  sizes.width = sizes.ffn_width = 256;
  sizes.n_layers = 2;
  sizes.n_heads = sizes.n_kv_heads = 4;
  sizes.context = UpCycling::kSequence;
  return sizes;
}

/// Sequences of one length as a batch that predicts the next token.
struct Sequences {
  void add(const std::vector<int32_t>& ids) {
    if (starts.empty()) starts.push_back(0);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    targets.insert(targets.end(), ids.begin() + 1, ids.end());
    targets.push_back(0);
    weights.insert(weights.end(), ids.size() - 1, 1.0f);
    weights.push_back(0.0f);
    starts.push_back(static_cast<uint32_t>(tokens.size()));
  }
  train::Batch view() const {
    const size_t n_targets = tokens.size() - (starts.size() - 1);
    return {tokens, targets, weights, starts, 1.0 / static_cast<double>(n_targets)};
  }

  std::vector<int32_t> tokens, targets;
  std::vector<float> weights;
  std::vector<uint32_t> starts;
};

std::unique_ptr<Engine> open_engine(const std::string& path, Ledger& ledger) {
  PlanRequest request;
  request.context = UpCycling::kSequence;
  request.kv = KvPolicy::parse("f32");
  return Engine::load(path, request, ledger);
}

}  // namespace

UpCycling::UpCycling(size_t dense_steps, size_t further_steps)
    : folder_(fmt::format("{}/mneme-up-cycling-{}", std::filesystem::temp_directory_path().string(), ::getpid())),
      further_steps_(further_steps) {
  std::filesystem::create_directories(folder_);
  for (size_t i = 0; i < kTopics * kSymbols; ++i) {
    PhiloxStream random(5, i);
    for (int k = 0; k < 4; ++k) successors_.push_back(kFirstSymbol + static_cast<int32_t>(random.next_below(kSymbols)));
  }
  // The vocabulary only gives the file its tokens; sequences are made of ids.
  tokenizer_ = std::make_unique<TrainTokenizer>(TrainTokenizer::train({"a made up language has no words"}, 300));
  Ledger ledger;
  LlamaModel<float> dense(ledger, sizes_of(tokenizer_->size()), GemmFormat::kFull);
  dense.initialise(1);
  train(dense, dense_steps, 1, 3e-3f);
  dense_loss_ = held_out_loss(dense);
  write(folder_ + "/dense.gguf", dense);
  base_ = std::make_unique<ModelFile>(open_gguf(folder_ + "/dense.gguf"));
}

UpCycling::~UpCycling() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::vector<int32_t> UpCycling::sequence(uint64_t stream) const {
  PhiloxStream random(7, stream);
  const size_t topic = random.next_below(kTopics);
  std::vector<int32_t> ids = {kFirstTopic + static_cast<int32_t>(topic),
                              kFirstSymbol + static_cast<int32_t>(random.next_below(kSymbols))};
  while (ids.size() < kSequence) {
    const float draw = random.next_float();
    const size_t choice = draw < 0.55f ? 0 : draw < 0.8f ? 1 : draw < 0.93f ? 2 : 3;
    const auto symbol = static_cast<size_t>(ids.back() - kFirstSymbol);
    ids.push_back(successors_[(topic * kSymbols + symbol) * 4 + choice]);
  }
  return ids;
}

void UpCycling::train(LlamaModel<float>& model, size_t n_steps, uint64_t seed, float rate) {
  const ParameterList trained = model.trained_list();
  OptimizerOptions options;
  options.kind = OptimizerKind::kAdamW;
  options.adamw.weight_decay = 0;
  const auto optimizer = make_optimizer(ledger_, trained, options);
  Executor<float> executor(ledger_, model.program(), model.parameter_list());
  for (size_t step = 0; step < n_steps; ++step) {
    Sequences batch;
    for (size_t i = 0; i < kBatchSequences; ++i) batch.add(sequence((seed << 20) + step * kBatchSequences + i));
    model.parameters().start_step();
    executor.train(batch.view());
    const double norm = gradient_norm(trained);
    // Twenty steps of warm-up, then a cosine to a tenth.
    const double done = static_cast<double>(step) / static_cast<double>(n_steps);
    const double factor =
        std::min(1.0, static_cast<double>(step + 1) / 20) * (0.55 + 0.45 * std::cos(std::numbers::pi * done));
    const StepInfo info{step, rate * static_cast<float>(factor), norm > 1 ? static_cast<float>(1 / norm) : 1.0f};
    for (size_t i = 0; i < trained.size(); ++i) optimizer->update(i, info);
  }
}

double UpCycling::held_out_loss(LlamaModel<float>& model) {
  Executor<float> executor(ledger_, model.program(), model.parameter_list());
  Sequences batch;
  for (size_t i = 0; i < kHeldOutSequences; ++i) batch.add(sequence(kHeldOut + i));
  executor.evaluate(batch.view());
  return model.loss().loss();
}

void UpCycling::write(const std::string& path, LlamaModel<float>& model) {
  export_gguf(path, "up-cycling", model, *tokenizer_, DType::kF32);
}

const UpCycling::Result& UpCycling::run(const std::string& name, const ExpertOptions* experts, uint64_t seed) {
  for (const auto& [known, result] : results_) {
    if (known == name) return *result;
  }
  auto result = std::make_unique<Result>();
  LlamaOptions options;
  if (experts != nullptr) {
    options.base = base_.get();
    options.experts = experts;
  }
  result->model = std::make_unique<LlamaModel<float>>(ledger_, sizes_of(tokenizer_->size()), options);
  result->model->initialise(seed + 1);
  load_weights(*base_, *result->model);
  train(*result->model, further_steps_, seed + 1, 1e-3f);
  result->loss = held_out_loss(*result->model);
  result->path = folder_ + "/" + name + ".gguf";
  write(result->path, *result->model);
  results_.emplace_back(name, std::move(result));
  return *results_.back().second;
}

double UpCycling::loss_of(const std::string& path) {
  Ledger ledger;
  const auto engine = open_engine(path, ledger);
  double sum = 0;
  size_t n = 0;
  for (size_t i = 0; i < kHeldOutSequences; ++i) {
    const std::vector<int32_t> ids = sequence(kHeldOut + i);
    const std::vector<float> logits = sequence_logits(*engine, ids);
    const size_t width = logits.size() / ids.size();
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      const float* row = logits.data() + t * width;
      const float most = *std::max_element(row, row + width);
      double total = 0;
      for (size_t v = 0; v < width; ++v) total += std::exp(static_cast<double>(row[v] - most));
      sum += std::log(total) - static_cast<double>(row[static_cast<size_t>(ids[t + 1])] - most);
      ++n;
    }
  }
  return sum / static_cast<double>(n);
}

std::string UpCycling::quantised(const std::string& path, const std::vector<std::pair<std::string, DType>>& types) {
  Ledger ledger;
  const auto source = open_source(path, ledger);
  QuantizeOptions how;
  how.tensor_types = types;
  const std::string out = path + ".quantised.gguf";
  quantize_model(*source, out, how, ledger);
  return out;
}

uint64_t UpCycling::expert_bytes(const std::string& path) {
  const ModelFile file = open_gguf(path);
  uint64_t bytes = 0;
  for (const NamedTensor& tensor : file.tensors()) {
    if (tensor.name.find("exps.") != std::string::npos || tensor.name.find("shexp.") != std::string::npos) {
      bytes += tensor.view.bytes();
    }
  }
  return bytes;
}

std::pair<std::vector<double>, size_t> UpCycling::compare(const Result& result) {
  Ledger ledger;
  const auto engine = open_engine(result.path, ledger);
  LlamaModel<float>& model = *result.model;
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const Parameter<float>& head = *model.parameters().find("token_embd.weight");
  std::vector<double> errors;
  size_t other_best = 0;
  for (size_t i = 0; i < kHeldOutSequences; ++i) {
    Sequences batch;
    batch.add(sequence(kHeldOut + i));
    executor.evaluate(batch.view());
    const size_t n = batch.tokens.size(), width = head.rows;
    std::vector<float> expected(n * width);
    packed_multiply(head.packed, executor.last_value(model.final_hidden()), n, false, expected.data());
    const std::vector<float> found = sequence_logits(*engine, batch.tokens);
    for (size_t t = 0; t < n; ++t) {
      const float *a = found.data() + t * width, *b = expected.data() + t * width;
      double error = 0, size = 0;
      for (size_t v = 0; v < width; ++v) {
        error += std::pow(static_cast<double>(a[v]) - static_cast<double>(b[v]), 2);
        size += std::pow(static_cast<double>(b[v]), 2);
      }
      errors.push_back(std::sqrt(error / size));
      other_best += std::max_element(a, a + width) - a != std::max_element(b, b + width) - b ? 1 : 0;
    }
  }
  std::sort(errors.begin(), errors.end());
  return {errors, other_best};
}

}  // namespace mneme
