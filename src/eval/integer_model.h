#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "budget/ledger.h"
#include "engine/sampling/vocabulary_view.h"
#include "kernels/integer_ops.h"

/// Integer-only inference (I-BERT, arXiv 2101.01321, for models with RMS norms, rotations and gated feed-forward
/// parts): what a device without floating point would compute, so that its cost in quality can be measured.
///
/// Values between the layers have fixed scales, which a text has set beforehand. With S the scale of a tensor and q its
/// integers, x ~ S q:
///
///     residual stream   int32, S a power of two for the whole model, room for 32 times what the text showed
///     points            int8, |q| <= 127: inputs of all matrices, and queries, keys and values (Point)
///     weights           int8, one S a row, S = max|w| / 127
///     products          int8 x int8 -> int32, times the dyadic number S_w S_x / S_y of the row -> next point
///     norm              x_j / sqrt(mean x^2) by integer square root and division, times the dyadic number w_j / S_y
///     rotations         cosines and sines in Q14, queries and keys with 7 bits more than int8 before
///     softmax           exp of (score - largest) in Q16, weights of 12 bits, sum of weighted values / sum of weights
///     gate              silu(g) u in Q16 by an integer sigmoid
///     logits            Q16
///
/// Not here: speed (products are plain loops), generation token by token, other architectures. The residual stream is
/// not quantised to 8 bits as in I-BERT, whose models have LayerNorm after each addition.
namespace mneme {
class Engine;
}

namespace mneme::integer {

/// Where values become 8-bit integers with a fixed scale.
enum class Point : uint8_t {
  kAttentionInput,  ///< Behind the first norm.
  kQuery,           ///< Behind the rotation.
  kKey,             ///< Behind the rotation.
  kValue,
  kAttended,          ///< Input of the attention's output matrix.
  kFeedForwardInput,  ///< Behind the second norm.
  kHidden,            ///< silu(gate) * up, input of the down matrix.
  kLast,              ///< Input of the output matrix; the only one outside the layers.
};
/// Of a layer.
constexpr size_t kPoints = 7;

/// Largest magnitudes, all above zero.
struct Ranges {
  struct Layer {
    std::array<float, kPoints> points;
    float output;  ///< Of the residual stream behind the layer.
  };
  std::vector<Layer> layers;
  float last = 0;      ///< Input of the output matrix.
  float residual = 0;  ///< Of the residual stream, anywhere.

  /// Of a model with so many layers that has seen nothing.
  static Ranges none(size_t n_layers);
};

/// Scale of 8-bit integers for a range.
constexpr float scale_of(float range) {
  return range / 127.0f;
}

/// A matrix [rows, columns] as codes times a scale a row.
struct Matrix {
  size_t rows = 0, columns = 0;
  std::vector<int8_t> codes;
  std::vector<float> scales;       ///< [rows]; for conversion and the simulated pass.
  std::vector<Dyadic> requantise;  ///< [rows], from sums of products to what follows.
};

/// x -> weight * x / sqrt(mean x^2 + epsilon)
struct Norm {
  std::vector<float> weight;       ///< [width]; for conversion and the simulated pass.
  std::vector<Dyadic> requantise;  ///< [width], from ratios in Q20 to codes.
};

struct Layer {
  Norm attention_norm, feed_forward_norm;
  Matrix query, key, value, output, gate, up, down;
  Dyadic score;     ///< From products of codes to scores in Q16.
  Dyadic attended;  ///< From values with kAverageBits more to codes of kAttended.
  Dyadic hidden;    ///< From Q16 to codes of kHidden.
};

constexpr int kRotationBits = 7, kAverageBits = 8, kAngleBits = 14, kRatioBits = 20, kWeightBits = 12;
/// Longest window whose weighted values surely fit an int32.
constexpr size_t kLongestWindow = (size_t{1} << (31 - kWeightBits)) / 128 - 1;
/// Widest residual stream whose squares surely fit.
constexpr size_t kWidest = size_t{1} << 14;

struct Model {
  size_t width = 0, n_vocab = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0;
  size_t n_pairs = 0;                   ///< Rotated pairs of a head; the other dimensions pass through.
  bool interleaved = true;              ///< Pairs (2i, 2i + 1), else (i, i + n_pairs).
  size_t window = 0;                    ///< Longest that may be run.
  std::vector<int16_t> cosines, sines;  ///< [window, n_pairs] in Q14.
  std::vector<float> frequency;         ///< [n_pairs]; for the simulated pass.
  int residual_bits = 0;                ///< Residual integers count 2^-residual_bits.
  int64_t epsilon = 0;                  ///< Of the norms, in squares of residual units.
  float norm_eps = 0;
  std::vector<int8_t> table;  ///< Token table [n_vocab, width] as codes; that of `output` when that is empty.
  std::vector<float> table_scales;
  std::vector<Dyadic> table_residual;  ///< [n_vocab], from codes to the residual stream.
  std::vector<Layer> layers;
  Norm last_norm;
  Matrix output;
  Ranges ranges;
  Reservation reserved;  ///< Of the codes and what belongs to them, under Tag::kScratch.
};

/// How a model becomes one of integers.
struct ConversionOptions {
  uint32_t window = 512;     ///< Longest that will be run, at most kLongestWindow.
  uint64_t max_windows = 8;  ///< Of the text that sets the ranges.
};

/// Converts the weights of a loaded model and fixes the ranges on `tokens`. Throws Error(kUnsupported) for
/// architectures but llama, for biases, experts, adapters, scaled positions and BITSTACK; Error(kInvalidArgument) for
/// values that are not finite, naming the matrix, for matrices so wide that sums overflow, and for a text without
/// tokens.
Model convert(Engine& engine, std::span<const TokenId> tokens, const ConversionOptions& options,
              const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

/// Quantises a matrix [rows, columns] to 8 bits a row. A row of zeros has scale 1. Throws Error(kInvalidArgument) with
/// `name` for values that are not finite and for more than kMostProducts columns.
Matrix quantise(std::span<const float> values, size_t columns, const std::string& name);

/// Sets all dyadic numbers for `ranges`. Throws Error(kInvalidArgument) when one of these is not finite.
void set_ranges(Model& model, const Ranges& ranges);

/// What a pass leaves at a point: integers [tokens, columns]. The simulated pass gives the same ones.
struct PointCodes {
  std::array<std::vector<int32_t>, kPoints> codes;
  std::vector<int32_t> output;  ///< Residual stream behind the layer.
};

/// Throws Error(kInvalidArgument) unless the window is no longer than the model's, its tokens are of the vocabulary and
/// 1 <= first <= tokens.
void check_window(const Model& model, std::span<const TokenId> window, size_t first);

/// Logits in Q16, [window - first, n_vocab], that predict tokens first, first + 1, ... of a window, which begins
/// with an empty context. Throws as check_window().
std::vector<int32_t> integer_logits(const Model& model, std::span<const TokenId> window, size_t first);
/// Residual stream behind the token table and each layer, [layers + 1][tokens, width].
std::vector<std::vector<int32_t>> integer_residuals(const Model& model, std::span<const TokenId> window);
/// One layer of a window whose residual stream before it is x [tokens, width].
PointCodes integer_layer(const Model& model, size_t layer, std::span<const int32_t> x);

/// The same layer with weights and points on the same steps, but real numbers between them: simulated quantisation.
PointCodes simulated_layer(const Model& model, size_t layer, std::span<const int32_t> x);
/// Logits [window - first, n_vocab] of the simulated pass.
std::vector<float> simulated_logits(const Model& model, std::span<const TokenId> window, size_t first);
/// Widens `ranges` by what the model sees in a window, in real numbers throughout (with the codes of the weights).
void widen_ranges(const Model& model, std::span<const TokenId> window, Ranges& ranges);

}  // namespace mneme::integer
