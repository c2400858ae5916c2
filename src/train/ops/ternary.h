#pragma once

#include <cstddef>
#include <cstdint>

/// The two roundings of ternary training (BitNet b1.58, arXiv 2402.17764; MoTE, arXiv 2506.14435).
namespace mneme::train {

/// g = mean |w| of a matrix [rows, columns] as half precision holds it, so that TQ2_0 and TQ1_0 store it exactly. Sums
/// of rows in f64, in a fixed order. 0 for a matrix of zeros. Parallel.
float ternary_scale(const float* w, size_t rows, size_t columns);
float ternary_scale(const double* w, size_t rows, size_t columns);

/// codes = clip(round(w / g), -1, 1), zeros where g is 0; returns g. Q(w) = g codes. `codes` apart from w. Parallel.
template <typename T>
T ternary_codes(const T* w, size_t rows, size_t columns, T* codes);

/// How inputs of ternary products are rounded to 8 bits.
enum class ActivationRounding : uint8_t {
  kNone,
  /// As the products of a running model round them: s = 2^e for each 32 columns, e the least with all |round(x / s)| <=
  /// 127; used value s round(x / s). An exported model then computes what training computed.
  kBlocks,
  /// As published: n = 127 / max |x| of a token (the maximum at least 1e-5), used value clip(round(n x), -128, 127) /
  /// n.
  kTokens,
};

/// y = rounded x [rows, columns]; y may be x. What is not finite becomes NaN. Parallel.
template <typename T>
void round_activations(ActivationRounding rounding, const T* x, size_t rows, size_t columns, T* y);

extern template float ternary_codes(const float*, size_t, size_t, float*);
extern template double ternary_codes(const double*, size_t, size_t, double*);
extern template void round_activations(ActivationRounding, const float*, size_t, size_t, float*);
extern template void round_activations(ActivationRounding, const double*, size_t, size_t, double*);

}  // namespace mneme::train
