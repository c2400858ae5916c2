#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "budget/ledger.h"
#include "tensor/aqlm.h"

/// How a matrix gets codes for additive vector quantisation (AQLM, arXiv 2401.06118; tensor/aqlm.h has the form). With
/// W [rows, columns], its stored form V and G = X^T X [columns, columns] over the inputs of a calibration text, it
/// lowers
///
///     L = trace((V - W) G (V - W)^T),   the squared error of the outputs on these inputs,
///
/// in three kinds of steps:
///
///   start      s[r] = root mean square of row r; codebook m by k-means on what those before it
///              left of the scaled groups, each error weighed with its diagonal entry of G
///   codebooks  with codes and scales fixed, L is quadratic in all codebooks together: conjugate
///              gradients, a step is one product with G. Then each s[r] = (v G w) / (v G v)
///   codes      groups in random order, for every row a beam search: codebook by codebook all 2^B
///              entries in each choice so far, of which the few with least L stay. With
///              q = (V - W) G and d the change of the group's vector, L changes by
///              2 s d . q[group] + s^2 d G[group, group] d^T
///
/// The last two alternate until a round gains less than a hundredth. Codebooks and scales are kept only where they
/// lower L with all values rounded as they will be stored, so L never rises.
///
/// The paper's code takes 100 steps of Adam (rate 1e-4) for codebooks and scales. Measured on 512 x 512 normal weights
/// with correlated inputs, from the same codes, 12 conjugate gradients and the scales end a little lower (0.0611 and
/// 0.0613 of the outputs, AQLM1x8g4) in an eighth of the time, and need no rate.
///
/// Not here: fine-tuning of blocks or of the whole model against the original's outputs; PV-tuning.
namespace mneme::aqlm {

constexpr size_t kMostBeam = 8;

struct QuantizerOptions {
  uint64_t seed = 0;           ///< Of the first centres of k-means and the order of groups.
  size_t beam = 4;             ///< Choices of a group that stay after each codebook, 1 to kMostBeam.
  int most_rounds = 30;        ///< Of codebooks and codes.
  int conjugate_steps = 12;    ///< A round.
  double tolerance = 0.01;     ///< Relative gain of a round that ends the alternation.
  int kmeans_iterations = 25;  ///< At most.
};

struct Quantized {
  std::vector<std::byte> stream;  ///< As tensor/aqlm.h has it.
  /// L over trace(W G W^T): after the start, then after each step of codebooks and each of codes.
  std::vector<double> losses;
};

/// Quantises `w` [rows, columns], all finite. `gram` is G [columns, columns] times any positive number, or its diagonal
/// [columns], or empty: all ones. The layout must be layout_for() of a scheme that is capped(). Parallel inside; the
/// result depends on the arguments and the kind of processor, not on the number of threads. Working memory is 16 bytes
/// a weight and the size of a full G, from `ledger`. `progress` is told the number of rounds and the loss.
Quantized quantize(std::span<const float> w, const Layout& layout, std::span<const float> gram,
                   const QuantizerOptions& options, Ledger& ledger,
                   const std::function<void(int round, double loss)>& progress = {});

}  // namespace mneme::aqlm
