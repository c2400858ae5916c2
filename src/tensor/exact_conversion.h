#pragma once

#include <cstddef>

#include "tensor/dtype.h"

namespace mneme {

/// True when every block of `from` can be stored as `to` with the same values, whatever they are: a grid of small
/// integers with one scale goes into Q8_0 (and ternary ones into Q4_0) with the same scale bits, the ternary packs into
/// one another, every type that decodes into F32. Float types without loss (BF16, DF11 and DF12) are not the matter
/// here.
bool converts_exactly(DType from, DType to);

/// Converts `n` elements (a multiple of both block sizes) of a pair for which converts_exactly() holds; not for F32.
void convert_exactly(DType from, DType to, const std::byte* in, std::byte* out, size_t n);

}  // namespace mneme
