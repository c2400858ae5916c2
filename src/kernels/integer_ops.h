#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>

/// Arithmetic of a processor without floating point: what is left of a model when every value is an integer times a
/// scale that was fixed beforehand.
///
/// Requantisation (arXiv 1712.05877, section 2.2): a real factor M, the scales of the inputs of a product over that of
/// its result, is an integer of 31 bits and a shift, M = m 2^-s, so that x M is a product in 64 bits and a rounding
/// shift. exp and square root are those of I-BERT (arXiv 2101.01321, algorithms 2 and 4): a polynomial of second order
/// on (-ln 2, 0] and shifts for the rest, Newton's iteration. Numbers in "Qn" are integers that count 2^-n.
///
/// All functions take integers alone: a float does not compile.
namespace mneme::integer {

template <typename T>
concept Integer = std::signed_integral<T> && sizeof(T) <= 8;

/// The factor multiplier * 2^-shift.
struct Dyadic {
  int32_t multiplier = 0;  ///< 2^30 <= |multiplier| < 2^31, or 0.
  int32_t shift = 1;       ///< 1 to 62.
};

/// The nearest one: relative error at most 2^-31. A factor so small that no 32-bit integer times it rounds to anything
/// but 0 becomes 0. Throws Error(kInvalidArgument) for factors of 2^30 and more, and for those that are not finite.
/// For conversion, not for the forward pass.
Dyadic to_dyadic(double factor);

/// Largest number of products of two 8-bit codes (magnitudes up to 127) whose sum surely fits an int32.
constexpr size_t kMostProducts = static_cast<size_t>(std::numeric_limits<int32_t>::max()) / (127 * 127);

/// x / 2^shift to the nearest integer, halves upwards. shift >= 0, and x + 2^(shift - 1) must fit.
template <Integer T>
constexpr T rounding_shift(T x, int shift) {
  if (shift == 0) return x;
  return static_cast<T>((x + (T{1} << (shift - 1))) >> shift);
}

/// x limited to the magnitudes that To has on both sides of zero: 127 for int8_t.
template <Integer To, Integer T>
constexpr To saturate(T x) {
  constexpr int64_t kMost = std::numeric_limits<To>::max();
  const auto wide = static_cast<int64_t>(x);
  return static_cast<To>(wide > kMost ? kMost : wide < -kMost ? -kMost : wide);
}

/// x times a factor, to the nearest To, limited.
template <Integer To>
constexpr To requantise(int32_t x, Dyadic factor) {
  return saturate<To>(rounding_shift(int64_t{x} * factor.multiplier, factor.shift));
}

/// n / d to the nearest integer, halves away from zero; d > 0.
template <Integer T>
constexpr T divide(T n, T d) {
  return static_cast<T>((n < 0 ? n - d / 2 : n + d / 2) / d);
}

/// floor(sqrt(n)) of n >= 0, by Newton's iteration from above.
template <Integer T>
constexpr T square_root(T n) {
  if (n < 2) return n;
  const auto bits = std::bit_width(static_cast<uint64_t>(n));
  for (T x = T{1} << (bits + 1) / 2;;) {
    const T next = (x + n / x) >> 1;
    if (next >= x) return x;
    x = next;
  }
}

/// A constant in Qn, for the compiler to work out.
consteval int64_t fixed(double value, int n) {
  return static_cast<int64_t>(value * static_cast<double>(int64_t{1} << n) + (value < 0 ? -0.5 : 0.5));
}

/// Fraction of the numbers that exp_nonpositive() and sigmoid() take and give.
constexpr int kFraction = 16;
constexpr int64_t kOne = int64_t{1} << kFraction;

/// exp(x) of x <= 0. With x = p - z ln 2, p in (-ln 2, 0]: exp(x) = exp(p) 2^-z, exp(p) ~ 0.3585 (p + 1.353)^2 + 0.344.
/// Within 2.2e-3, of which 2.13e-3 is the polynomial (the paper says 1.9e-3; no parabola comes below 1.2e-3).
template <Integer T>
constexpr T exp_nonpositive(T x) {
  constexpr int64_t kLn2 = fixed(0.69314718056, kFraction), kA = fixed(0.3585, kFraction), kB = fixed(1.353, kFraction),
                    kC = fixed(0.344, kFraction);
  const int64_t z = -static_cast<int64_t>(x) / kLn2, p = static_cast<int64_t>(x) + z * kLn2;
  if (z > kFraction + 1) return 0;
  const int64_t square = ((p + kB) * (p + kB)) >> kFraction;
  return static_cast<T>(rounding_shift(((square * kA) >> kFraction) + kC, static_cast<int>(z)));
}

/// 1 / (1 + exp(-x)), with the exponential of -|x|: the two halves add up to one.
template <Integer T>
constexpr T sigmoid(T x) {
  const int64_t e = exp_nonpositive<int64_t>(x < 0 ? int64_t{x} : -int64_t{x});
  const int64_t small = divide<int64_t>(e << kFraction, kOne + e);
  return static_cast<T>(x < 0 ? small : kOne - small);
}

/// Sum of a[i] * b[i] in 32 bits; n at most kMostProducts.
template <Integer T>
requires(sizeof(T) == 1) constexpr int32_t dot(const T* a, const T* b, size_t n) {
  int32_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += int32_t{a[i]} * int32_t{b[i]};
  return sum;
}

}  // namespace mneme::integer
