#include "eval/hessian_trace.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "budget/buffer.h"
#include "train/sampler.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

using namespace train;

/// Calls use(i, sign) for the n signs of a stream, 32 a random word.
template <typename Use>
void for_signs(uint64_t seed, uint64_t stream, size_t n, Use use) {
  PhiloxStream random(seed, stream);
  uint32_t word = 0;
  for (size_t i = 0; i < n; ++i) {
    if (i % 32 == 0) word = random.next_u32();
    use(i, (word >> (i % 32) & 1u) != 0 ? 1 : -1);
  }
}

/// A matrix, where its values are kept, and how far it is moved.
template <typename T>
struct Moved {
  Parameter<T>* matrix;
  const T* kept;
  double step;
};

double rms(const auto& parameter) {
  double sum = 0;
  for (size_t i = 0; i < parameter.size(); ++i) sum += std::pow(static_cast<double>(parameter.value[i]), 2);
  return std::sqrt(sum / static_cast<double>(parameter.size()));
}

}  // namespace

template <typename T>
std::map<std::string, TraceEstimate> estimate_traces(Ledger& ledger, LlamaModel<T>& model, Executor<T>& executor,
                                                     std::span<const Batch> batches, const TraceOptions& options,
                                                     const std::function<void(size_t, size_t)>& progress) {
  std::vector<Moved<T>> all;
  size_t total = 0;
  for (Parameter<T>* p : model.trained_list()) {
    if (!p->is_matrix() || p->is_packed()) continue;
    // A matrix of zeros is moved by the step itself.
    const double size = rms(*p);
    all.push_back({p, nullptr, options.step * (size > 0 ? size : 1.0)});
    total += p->size();
  }
  Buffer kept(ledger, Tag::kScratch, total * sizeof(T), "weights before they are moved");
  T* next = kept.as<T>().data();
  for (Moved<T>& m : all) {
    m.kept = next;
    next = std::copy_n(m.matrix->value, m.matrix->size(), next);
  }
  std::vector<double> sum(all.size()), squares(all.size()), found(all.size());
  for (size_t probe = 0; probe < options.probes; ++probe) {
    progress(probe, options.probes);
    std::fill(found.begin(), found.end(), 0.0);
    for (const int direction : {1, -1}) {
      for (size_t i = 0; i < all.size(); ++i) {
        const Moved<T>& m = all[i];
        const T step = static_cast<T>(direction * m.step);
        for_signs(options.seed, probe * all.size() + i, m.matrix->size(),
                  [&](size_t j, int sign) { m.matrix->value[j] = m.kept[j] + static_cast<T>(sign) * step; });
      }
      model.parameters().start_step();
      for (const Batch& batch : batches) executor.train(batch);
      for (size_t i = 0; i < all.size(); ++i) {
        const Moved<T>& m = all[i];
        double product = 0;
        for_signs(options.seed, probe * all.size() + i, m.matrix->size(),
                  [&](size_t j, int sign) { product += sign * static_cast<double>(m.matrix->grad[j]); });
        found[i] += direction * product / (2 * m.step);
      }
    }
    for (size_t i = 0; i < all.size(); ++i) {
      const double mean = found[i] / static_cast<double>(all[i].matrix->size());
      sum[i] += mean;
      squares[i] += mean * mean;
    }
  }
  progress(options.probes, options.probes);
  std::map<std::string, TraceEstimate> out;
  const auto n = static_cast<double>(options.probes);
  for (size_t i = 0; i < all.size(); ++i) {
    std::copy_n(all[i].kept, all[i].matrix->size(), all[i].matrix->value);
    const double mean = sum[i] / n, variance = std::max(0.0, squares[i] / n - mean * mean);
    out[all[i].matrix->name] = {mean, std::sqrt(variance / std::max(1.0, n - 1))};
  }
  return out;
}

HessianTraces hessian_traces(const std::string& path, std::span<const int32_t> tokens, const TraceText& text,
                             const TraceOptions& options, Ledger& ledger,
                             const std::function<void(size_t, size_t)>& progress) {
  const ModelFile file = open_gguf(path);
  LlamaSizes sizes = llama_sizes_of(file);
  const size_t window = std::min<size_t>({text.window, sizes.context, tokens.size() - (tokens.empty() ? 0 : 1)});
  if (window < 16) {
    fail(ErrorCode::kInvalidArgument, "[hessian] expected a text of 17 tokens or more, found {}", tokens.size());
  }
  sizes.context = window;
  LlamaModel<float> model(ledger, sizes, GemmFormat::kFull);
  load_weights(file, model);
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const uint64_t n = std::min<uint64_t>(std::max<uint64_t>(1, text.max_windows), (tokens.size() - 1) / window);
  const std::vector<float> weights(window, 1.0f);
  const std::vector<uint32_t> starts = {0, static_cast<uint32_t>(window)};
  std::vector<Batch> batches;
  for (uint64_t w = 0; w < n; ++w) {
    batches.push_back({tokens.subspan(w * window, window), tokens.subspan(w * window + 1, window), weights, starts,
                       1.0 / static_cast<double>(n * window)});
  }
  HessianTraces out;
  for (const auto& [name, trace] : estimate_traces(ledger, model, executor, batches, options, progress)) {
    out.mean_trace[name] = std::max(0.0, trace.mean);
  }
  return out;
}

template std::map<std::string, TraceEstimate> estimate_traces(Ledger&, LlamaModel<float>&, Executor<float>&,
                                                              std::span<const Batch>, const TraceOptions&,
                                                              const std::function<void(size_t, size_t)>&);
template std::map<std::string, TraceEstimate> estimate_traces(Ledger&, LlamaModel<double>&, Executor<double>&,
                                                              std::span<const Batch>, const TraceOptions&,
                                                              const std::function<void(size_t, size_t)>&);

}  // namespace mneme
