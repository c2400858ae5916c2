#pragma once

#include <functional>
#include <span>

#include "engine/engine.h"
#include "weights/quantize.h"

namespace mneme {

struct SensitivityOptions {
  uint32_t window = 512;     ///< Tokens of one independent window, at most the engine's context.
  uint64_t max_windows = 2;  ///< Read once for each matrix.
};

/// How sensitive a model is to errors of each of its matrices, measured: a matrix alone is rounded to `probe` and the
/// model reads the text again. HAWQ-V2 (arXiv 1911.03852) takes the trace of the Hessian for this; the divergence
/// of the answers is what that trace stands for, and needs no gradients.
///
/// One pass over the text a matrix and one before. Stacks of experts and matrices whose shape has no type near `probe`
/// are measured like others. The engine has its own weights again afterwards. Throws Error(kInvalidArgument) when the
/// text has not 16 tokens.
MeasuredLosses measure_sensitivity(Engine& engine, std::span<const TokenId> tokens, DType probe,
                                   const SensitivityOptions& options,
                                   const std::function<void(size_t done, size_t all)>& progress);

}  // namespace mneme
