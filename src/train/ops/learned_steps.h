#pragma once

#include <cstddef>

/// Learned step sizes (LSQ, Esser et al., arXiv 1902.08153) on the odd grid of bipolar integers (tensor/bipolar.h): the
/// scale of each group of 128 weights is a parameter like the weights themselves. With n bits, P = 2^n - 1 and the step
/// S of a group,
///
///   s = |S| in half precision, as BIPOLARn stores it            q = the odd number nearest to clip(w / s, -P, P)
///   Q(w) = s q
///   dQ/dw = 1 where |w / s| < P, 0 beyond
///   dQ/dS = (q - w / s) sign(S) where |w / s| < P, q sign(S) beyond; q = +-P there
///
/// the paper's gradients, whose round() has levels at odd numbers instead of all of them: rounding counts as the
/// addition of a constant (straight-through estimator). The grid is symmetric, so Q is an even function of S. The
/// gradient of S is multiplied by 1 / sqrt(128 P), the paper's balance between steps and weights, which matters to
/// optimisers that do not divide by the size of gradients. The paper starts with S = 2 mean |w| / sqrt(P); here each
/// group starts with the step of least squared error.
///
/// w is [rows, columns] with columns a multiple of 128, S [rows, columns / 128]; all functions but encode_steps() are
/// parallel over rows.
namespace mneme::train {

/// out = Q(w), apart from w.
template <typename T>
void round_to_steps(int bits, const T* w, const T* steps, size_t rows, size_t columns, T* out);

/// Gradients of w and S from dq, that of Q(w) [rows, columns]; written, or added where `add` or `add_steps` says so.
template <typename T>
void step_gradients(int bits, const T* w, const T* steps, size_t rows, size_t columns, const T* dq, bool add, T* dw,
                    bool add_steps, T* dsteps);

/// steps = those of least squared error among some below max |w| / P, each improved once by least squares.
template <typename T>
void start_steps(int bits, const T* w, size_t rows, size_t columns, T* steps);

/// Q(w) of one row as BIPOLARn stores it: decoding gives the very values of round_to_steps().
void encode_steps(int bits, const float* w, const float* steps, size_t columns, std::byte* row);

extern template void round_to_steps(int, const float*, const float*, size_t, size_t, float*);
extern template void round_to_steps(int, const double*, const double*, size_t, size_t, double*);
extern template void step_gradients(int, const float*, const float*, size_t, size_t, const float*, bool, float*, bool,
                                    float*);
extern template void step_gradients(int, const double*, const double*, size_t, size_t, const double*, bool, double*,
                                    bool, double*);
extern template void start_steps(int, const float*, size_t, size_t, float*);
extern template void start_steps(int, const double*, size_t, size_t, double*);

}  // namespace mneme::train
