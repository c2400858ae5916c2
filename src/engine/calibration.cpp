#include "engine/calibration.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "base/parallel.h"

namespace mneme {
namespace {

/// Gathers what products read, by the matrices that read it.
class Collector {
 public:
  Collector(const Model& model, const CalibrationOptions& options, Ledger& ledger)
      : options_(options), ledger_(ledger), product_(ledger) {
    for (const auto& matrix : model.weights.matrices) names_[matrix->active.data] = matrix->name;
  }

  /// Products that run together read the same input and do so in every pass: they share their statistics.
  void observe(std::span<const kernels::MatmulTask> tasks, const kernels::MatmulInput& input) {
    std::shared_ptr<InputStatistics> shared;
    for (const kernels::MatmulTask& task : tasks) {
      const auto name = names_.find(task.w.data);
      if (name == names_.end()) continue;
      std::shared_ptr<InputStatistics>& own = by_data_[task.w.data];
      if (own == nullptr) {
        own = shared != nullptr ? shared : std::make_shared<InputStatistics>();
        calibration_.set(name->second, own);
      }
      if (shared == nullptr) {
        shared = own;
        add(*own, name->second, input);
      }
    }
  }

  Calibration take() { return std::move(calibration_); }

 private:
  void add(InputStatistics& to, const std::string& name, const kernels::MatmulInput& input) {
    const size_t n = input.n_tokens(), columns = input.columns();
    const float* x = input.x();
    to.squares.resize(columns);
    to.magnitudes.resize(columns);
    to.largest.resize(columns);
    to.n_rows += n;
    for (size_t t = 0; t < n; ++t) {
      for (size_t j = 0; j < columns; ++j) {
        const double v = static_cast<double>(x[t * columns + j]);
        to.squares[j] += v * v;
        to.magnitudes[j] += std::abs(v);
        to.largest[j] = std::max(to.largest[j], std::abs(x[t * columns + j]));
      }
    }
    if (options_.wants_gram && options_.wants_gram(name)) add_gram(to, name, x, n, columns);
  }

  /// gram += x^T x, as the product of x^T, taken as a matrix of weights, with x^T, taken as activations.
  void add_gram(InputStatistics& to, const std::string& name, const float* x, size_t n, size_t columns) {
    if (to.gram.empty()) {
      reserved_.push_back(ledger_.reserve(Tag::kScratch, columns * columns * sizeof(float), "gram matrix of " + name));
    }
    std::vector<float> transposed(columns * n), sums(columns * columns);
    for (size_t t = 0; t < n; ++t) {
      for (size_t j = 0; j < columns; ++j) transposed[j * n + t] = x[t * columns + j];
    }
    product_.set(transposed.data(), columns, n);
    const kernels::Matrix w{DType::kF32, kernels::Layout::kPlain, columns, n,
                            reinterpret_cast<const std::byte*>(transposed.data())};
    kernels::matmul(w, product_, nullptr, sums.data(), columns);
    to.gram.resize(sums.size());
    for (size_t i = 0; i < sums.size(); ++i) to.gram[i] += sums[i];
  }

  const CalibrationOptions& options_;
  Ledger& ledger_;
  std::vector<Reservation> reserved_;  ///< Of the gram matrices, which may be more than the machine has.
  kernels::MatmulInput product_;
  std::unordered_map<const std::byte*, std::string> names_;
  std::unordered_map<const std::byte*, std::shared_ptr<InputStatistics>> by_data_;
  Calibration calibration_;
};

}  // namespace

Calibration calibrate(Engine& engine, std::span<const TokenId> tokens, const CalibrationOptions& options,
                      const std::function<void(uint64_t, uint64_t)>& progress) {
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "[calibrate] expected text, found none");
  const auto unk = engine.tokenizer().unk();
  const auto unknown = unk ? std::count(tokens.begin(), tokens.end(), *unk) : 0;
  if (static_cast<size_t>(unknown) * 2 > tokens.size()) {
    fail(ErrorCode::kInvalidArgument,
         "[calibrate] expected text of this model's vocabulary, found {} of {} tokens unknown", unknown, tokens.size());
  }
  const size_t window = std::min<size_t>(options.window, engine.plan().context);
  const uint64_t n_windows = std::min<uint64_t>(options.max_windows, (tokens.size() + window - 1) / window);
  Collector collector(engine.model(), options, engine.ledger());
  engine.workspace().input().observe([&](std::span<const kernels::MatmulTask> tasks,
                                         const kernels::MatmulInput& input) { collector.observe(tasks, input); });
  try {
    for (uint64_t w = 0; w < n_windows; ++w) {
      std::vector<TokenId> piece(tokens.begin() + static_cast<long>(w * window),
                                 tokens.begin() + static_cast<long>(std::min<size_t>(tokens.size(), (w + 1) * window)));
      if (engine.tokenizer().adds_bos()) piece.front() = *engine.tokenizer().bos();
      const auto state = engine.make_state();
      engine.run(*state, piece, [&](size_t, size_t n, const float* hidden) {
        const Workspace::Scope scope(engine.workspace());
        // The output matrix reads rows too; one a pass is what the plan has room for.
        float* const logits = engine.workspace().floats(engine.model().n_logits());
        const size_t last = n - 1;
        engine.model().logits(hidden, {&last, 1}, engine.workspace(), logits);
      });
      progress(w + 1, n_windows);
    }
  } catch (...) {
    engine.workspace().input().observe({});
    throw;
  }
  engine.workspace().input().observe({});
  return collector.take();
}

}  // namespace mneme
