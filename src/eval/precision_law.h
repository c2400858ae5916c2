#pragma once

#include <limits>
#include <span>
#include <vector>

/// Scaling law of training in low-precision floating point (arXiv 2501.02423): the loss of a model from its size, its
/// data and the number format of the inputs of its matrix products,
///
///   L(N, D, E, M, B) = n / N^alpha + d / D^beta + epsilon + (D^beta / N^alpha) log2(B) / (gamma (E + 0.5)^delta (M +
///   0.5)^nu)
///
/// with N parameters without embeddings, D tokens, E exponent and M mantissa bits, B elements that share a scale; L in
/// nats per token. B = 1 leaves the last term out: that is the law of Chinchilla (arXiv 2203.15556).
///
/// What it does not know: scales per tensor (their constants are not published), and anything outside the range it was
/// fitted on; see in_published_range().
namespace mneme {

struct PrecisionLaw {
  double n, alpha, d, beta, epsilon;  ///< Size, data and the loss that no model goes below.
  double gamma, delta, nu;            ///< Precision.
};

/// Table 2 of the paper: 366 runs of 41M to 679M parameters on 10 to 100 billion tokens.
constexpr PrecisionLaw kPublishedLaw = {69.2343, 0.2368, 68973.0621, 0.5162, 1.9061, 11334.5197, 3.1926, 2.9543};

/// log2(B) that stands for one scale a channel.
constexpr double kChannelLog2Block = 13.1567;

/// Compute per parameter, token and bit of a format: C = k (E + M + 1) N D.
constexpr double kComputePerBit = 6.0 / 16.0;

/// What is trained and in which precision. log2_block 0: full precision.
struct TrainingSetting {
  double parameters, tokens;
  double exponent_bits, mantissa_bits, log2_block;
};

/// Whether the published constants were fitted, or checked by the paper, on models and data of this size.
bool in_published_range(double parameters, double tokens);

double predicted_loss(const PrecisionLaw& law, const TrainingSetting& s);

/// Tokens beyond which more data makes the model worse: [d gamma N^alpha (E + 0.5)^delta (M + 0.5)^nu / log2(B)]^(1 /
/// (2 beta)). Infinite in full precision. s.tokens is not used.
double critical_tokens(const PrecisionLaw& law, const TrainingSetting& s);

struct BitLayout {
  int exponent_bits, mantissa_bits;
};
/// The best split of `bits` = E + M + 1 (at least 2): the integers that maximise (E + 0.5)^delta (M + 0.5)^nu.
BitLayout best_layout(const PrecisionLaw& law, int bits);

/// gamma_rho: with the best real-valued split of P bits the last term is (D^beta / N^alpha) log2(B) / (gamma_rho
/// P^(delta + nu)).
double layout_factor(const PrecisionLaw& law);

/// Parameters of a full-precision model that loses as much on the size term as N parameters in P bits on size and
/// precision.
double effective_parameters(const PrecisionLaw& law, double parameters, double tokens, double bits, double log2_block);

/// The number of bits, real-valued, with the least loss at a fixed compute C and fixed D, fixed N, or both free.
double best_bits_for_tokens(const PrecisionLaw& law, double tokens, double log2_block);
double best_bits_for_parameters(const PrecisionLaw& law, double parameters, double compute, double log2_block);
double best_bits(const PrecisionLaw& law, double compute, double log2_block);

/// A point of least loss.
struct PrecisionPlan {
  double bits, parameters, tokens, loss;
};
/// The least loss at compute C by numeric search over bits in [2, 32] and parameters, real-valued layout; closed forms
/// are checked against it.
PrecisionPlan search_best_plan(const PrecisionLaw& law, double compute, double log2_block);

}  // namespace mneme
