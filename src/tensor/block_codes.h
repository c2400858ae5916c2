#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace mneme {

/// The codes of a block apart from its scales, for methods that choose codes one by one (weights/gptq.h). Elements
/// i group ... (i + 1) group - 1 of a block share a scale, so a code means the same for all of them.
struct BlockCodes {
  DType dtype;
  size_t count;                                           ///< Codes are 0 to count - 1.
  size_t group;                                           ///< Divides the block.
  void (*store)(const uint8_t* codes, std::byte* block);  ///< One code an element of one block, whose scales stay.
};

/// Null for types that have no such access: with one scale a block, which their encoder finds again from levels.
const BlockCodes* find_block_codes(DType dtype);

}  // namespace mneme
