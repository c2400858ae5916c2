#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Which type each tensor gets when the whole must fit some bytes: minimise the sum of losses subject to the sum of
/// bytes, one choice a tensor (the multiple-choice knapsack of HAWQ-V2/V3, arXiv 1911.03852 and 2011.10680).
namespace mneme {

/// What a tensor would cost in one type.
struct TypeChoice {
  uint64_t bytes;
  double loss;
};

/// The index of the choice taken for each tensor, such that the bytes are at most `budget` and the losses are least, by
/// dynamic programming over the budget in `steps` equal parts: bytes are rounded up to whole parts, so the result
/// always fits and is the best within about one part a tensor. Empty when not even the smallest choices fit. Every
/// tensor has a choice.
std::vector<size_t> allocate_bits(std::span<const std::vector<TypeChoice>> tensors, uint64_t budget,
                                  size_t steps = 20000);

}  // namespace mneme
