#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

namespace mneme {

/// a + b, or nothing when the sum does not fit T. For sizes and offsets that come from a file or socket.
template <std::integral T>
constexpr std::optional<T> checked_add(T a, T b) {
  T sum{};
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

/// a * b, or nothing when the product does not fit T.
template <std::integral T>
constexpr std::optional<T> checked_mul(T a, T b) {
  T product{};
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// Smallest multiple of `align` (> 0) that is >= n, or nothing on overflow.
template <std::unsigned_integral T>
constexpr std::optional<T> checked_round_up(T n, T align) {
  const T rest = n % align;
  return rest == 0 ? std::optional<T>(n) : checked_add<T>(n, align - rest);
}

/// Smallest multiple of `align` (> 0) that is >= n; the caller knows that it fits.
template <std::unsigned_integral T>
constexpr T round_up(T n, T align) {
  return (n + align - 1) / align * align;
}

/// ceil(n / d) for d > 0.
template <std::unsigned_integral T>
constexpr T div_up(T n, T d) {
  return n / d + (n % d != 0);
}

}  // namespace mneme
