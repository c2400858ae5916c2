#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/precision_law.h"

/// Fits the scaling law of precision_law.h to training runs, in the way of arXiv 2501.02423 and of Chinchilla (arXiv
/// 2203.15556): Huber loss (delta 1e-3) between the logarithms of predicted and measured losses, minimised by L-BFGS
/// from a grid of starts. First n, alpha, d, beta, epsilon on the full-precision runs, then gamma, delta, nu on the
/// others with those fixed, then all eight together. All parameters but exponents are fitted as logarithms, so they
/// stay positive.
namespace mneme {

struct ScalingRun {
  TrainingSetting setting;  ///< log2_block 0: full precision; the bits are not used then.
  double loss;              ///< Nats per token.
};

struct FitOptions {
  size_t n_bootstrap = 100;  ///< Refits on runs drawn with replacement, for the intervals; 0: none.
  uint64_t seed = 1;
};

struct ScalingFit {
  PrecisionLaw law;
  bool has_precision = false;    ///< False without low-precision runs: gamma, delta and nu mean nothing then.
  PrecisionLaw low, high;        ///< 5 % and 95 % points of the bootstrap; equal to `law` without.
  size_t n_full = 0, n_low = 0;  ///< Runs of each kind.
  double r2 = 0;                 ///< Of predicted against measured losses.
  double mean_error = 0;         ///< Mean absolute error in nats.
  /// Most that low precision costs one of the runs by the law, in nats. Well below mean_error: these runs don't show what
  /// precision costs, and gamma, delta and nu mean nothing.
  double most_precision_loss = 0;
};

/// Fits all runs. Needs 6 full-precision runs of at least 2 sizes and 2 amounts of data; low-precision runs may be
/// absent or at least 4. Throws Error(kInvalidArgument) that says what is missing, or which run has a value that is not
/// positive.
ScalingFit fit_scaling_law(std::span<const ScalingRun> runs, const FitOptions& options);

/// Runs from JSON lines: parameters, tokens, loss; for low precision also exponent_bits, mantissa_bits and block
/// (elements that share a scale, or "channel"). Throws Error(kCorruptData) that names the line.
std::vector<ScalingRun> read_scaling_runs(const std::string& path);

}  // namespace mneme
