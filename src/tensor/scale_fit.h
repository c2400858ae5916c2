#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/block_fields.h"

/// Weighted least-squares choice of scales and codes, shared by the encoders that search.
///
/// For given codes q the best scale (and minimum) is a small linear problem, and its error follows from five weighted
/// sums. So a fit tries a grid of scales around the one that just spans the range, rounds, solves, keeps the best by
/// the sums alone, and then alternates rounding and solving (Lloyd's iteration). Every step only lowers the error.
namespace mneme::codecs {

/// Positive weights of the squared error for n elements: the importance, or rms + |x| where it is null, which favours
/// large weights a little. A small share of the mean is added, so that no block is without weight.
void error_weights(const float* x, const float* importance, size_t n, float* weights);

/// x ~ scale * code - minimum with scale >= 0 and codes 0..max_code.
struct AffineFit {
  float scale, minimum;
};
/// `free_minimum`: the minimum may have either sign, else it is >= 0. N is 16 or 32.
template <size_t N>
AffineFit fit_affine(const float* x, const float* weights, int max_code, bool free_minimum);

/// Scale of x ~ scale * code with codes low..high (low < 0 < high); it may be negative. N is 16 or 32.
template <size_t N>
float fit_symmetric(const float* x, const float* weights, int low, int high);

/// A super-block as d * scales[k] * code - dmin * minima[k] over its kSuper / SubN sub-blocks. d and dmin are values
/// that a half holds.
template <size_t SubN>
struct AffineSuper {
  float d, dmin;
  int scales[kSuper / SubN], minima[kSuper / SubN];
  uint8_t codes[kSuper];
};
/// Codes 0..max_code, scales and minima 0..max_scale.
template <size_t SubN>
void fit_affine_super(const float* x, const float* importance, int max_code, int max_scale, AffineSuper<SubN>& out);

/// A super-block of 16 sub-blocks as d * scales[k] * code.
struct SymmetricSuper {
  float d;
  int scales[16];
  int8_t codes[kSuper];
};
/// Codes low..high, scales min_scale..max_scale, both with the larger magnitude on the negative side.
void fit_symmetric_super(const float* x, const float* importance, int low, int high, int min_scale, int max_scale,
                         SymmetricSuper& out);

}  // namespace mneme::codecs
