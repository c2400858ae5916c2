#pragma once

#include <span>
#include <string>
#include <string_view>

#include "weights/quantize.h"

namespace mneme {

/// How a model is stored at one point of a study.
struct StudyFormat {
  std::string width;                    ///< As it was asked for: "4", or a format's name.
  const QuantRecipe* recipe = nullptr;  ///< Lives as long as the program.
};

/// The format for `width`, 8, 4, 3 or 2 bits, or the name of a format. A width becomes the first setting of AQLM below
/// whose matrices, with their codebooks, take at most half a bit a weight more than the width; where none does, the
/// last:
///
///     8   4x15g8  8x8g8  4x8g4  2x8g2      4   2x15g8  4x8g8  2x8g4  1x8g2
///     3   2x12g8  3x8g8  2x6g4  1x6g2      2   1x15g8  2x8g8  1x8g4  1x4g2
///
/// The first ones are those of arXiv 2503.07103, for matrices of thousands of rows; codebooks of small ones cost more
/// than codes. Throws Error(kInvalidArgument).
StudyFormat study_format(std::string_view width, const Metadata& metadata, std::span<const TensorInfo> tensors);

/// Bits a weight that the matrices of a model would take in an AQLM recipe, scales and codebooks included; only those
/// that become AQLM.
double aqlm_bits(const QuantRecipe& recipe, const Metadata& metadata, std::span<const TensorInfo> tensors);

}  // namespace mneme
