#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mneme::train {

/// Which experts the tokens of a batch go to. Each token takes K rows of an array [n K, columns] in which the rows of
/// one expert follow one another, experts in order, tokens of an expert in order. So whatever the router decides,
/// arrays of gathered rows have the size that was planned, n K rows: no token is dropped and nothing is kept free.
///
/// As a value of a program a route has 2 K columns, of which each holds a u32.
struct Route {
  std::span<uint32_t> row_of;     ///< [n K] row of choice k of token t, at t K + k
  std::span<uint32_t> expert_of;  ///< [n K] expert of a row, ascending

  /// The route in the memory of a value.
  template <typename T>
  static Route of(T* value, size_t n_tokens, size_t n_used) {
    auto* words = reinterpret_cast<uint32_t*>(value);
    return {{words, n_tokens * n_used}, {words + n_tokens * n_used, n_tokens * n_used}};
  }

  /// First row of an expert; that of the next one is its end.
  size_t first_row(size_t expert) const {
    return static_cast<size_t>(std::lower_bound(expert_of.begin(), expert_of.end(), expert) - expert_of.begin());
  }
};

}  // namespace mneme::train
