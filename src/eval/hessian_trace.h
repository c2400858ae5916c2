#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "train/llama.h"
#include "train/tape/executor.h"
#include "weights/quantize.h"

/// Traces of the Hessian, the sensitivity of HAWQ-V2 (arXiv 1911.03852), by Hutchinson's estimator with gradients of
/// the training engine.
///
/// With L the mean cross-entropy of a text, W_i the matrices and H_i = d2L / dW_i2 the block of each, rows of +-1 v_i
/// (Rademacher) drawn for all matrices at once and e_i = step rms(W_i),
///
///   tr H_i = E[v_i . (grad_i L(W + e v) - grad_i L(W - e v)) / (2 e_i)]        e v: all matrices moved together
///
/// since E[v_i H_ij v_j] = 0 between matrices: two gradients a probe for all matrices. What other matrices add is noise
/// with mean 0, and the estimate says how large it is. The trace over the number of weights, times the squared error of
/// a rounding ||Q(W_i) - W_i||^2, is twice the loss that it is expected to cause.
namespace mneme {

struct TraceOptions {
  size_t probes = 16;
  double step = 1e-2;  ///< e_i over the root mean square of a matrix.
  uint64_t seed = 1;   ///< Of the signs: Philox, by seed, probe and matrix.
};

/// Mean of the diagonal of the block of a matrix, and the standard error of that mean over the probes.
struct TraceEstimate {
  double mean = 0, error = 0;
};

/// By name, for all matrices of `model` that are not frozen. `executor` runs its program and is asked for gradients of
/// each batch, whose losses add up. Matrices have their values again afterwards. Two probes or more.
template <typename T>
std::map<std::string, TraceEstimate> estimate_traces(Ledger& ledger, train::LlamaModel<T>& model,
                                                     train::Executor<T>& executor,
                                                     std::span<const train::Batch> batches, const TraceOptions& options,
                                                     const std::function<void(size_t done, size_t all)>& progress);

struct TraceText {
  uint32_t window = 512;     ///< Tokens of one independent window, at most the model's context.
  uint64_t max_windows = 2;  ///< All are read for each gradient.
};

/// Traces of a GGUF model on a text, for QuantizeOptions::traces. All its weights are in memory in f32, with gradients,
/// under `ledger`. A trace that is estimated below 0 counts as 0. Throws Error(kUnsupported) for models that the
/// training engine does not run, and Error(kInvalidArgument) when the text has not 17 tokens.
HessianTraces hessian_traces(const std::string& model, std::span<const int32_t> tokens, const TraceText& text,
                             const TraceOptions& options, Ledger& ledger,
                             const std::function<void(size_t done, size_t all)>& progress);

extern template std::map<std::string, TraceEstimate> estimate_traces(Ledger&, train::LlamaModel<float>&,
                                                                     train::Executor<float>&,
                                                                     std::span<const train::Batch>, const TraceOptions&,
                                                                     const std::function<void(size_t, size_t)>&);
extern template std::map<std::string, TraceEstimate> estimate_traces(Ledger&, train::LlamaModel<double>&,
                                                                     train::Executor<double>&,
                                                                     std::span<const train::Batch>, const TraceOptions&,
                                                                     const std::function<void(size_t, size_t)>&);

}  // namespace mneme
