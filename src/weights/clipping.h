#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "tensor/dtype.h"

/// Ranges of values before quantisation (A Survey of Quantization Methods, arXiv 2103.13630, section III.B): a few
/// large values cost all others resolution where they set the scale. Values outside [-c, c] become the border.
namespace mneme {

enum class Clipping : uint8_t {
  kNone,
  kPercentile,  ///< c: the 99.9th percentile of |w| in the row.
  kMse,         ///< c: of 16 factors of max|w| from 1 down to 0.4, the one with the least squared error once stored.
  kKl,          ///< c: least KL divergence between the histogram of |w| (2048 bins) and its quantised form (entropy
                ///< calibration), over the row.
};

/// By the name that the command line uses: none, percentile, mse, kl.
std::optional<Clipping> find_clipping(std::string_view name);

/// The border c for a row that will be stored as `to`; infinity when nothing is to be clipped. `importance` weighs the
/// squared error per column; may be null.
float clip_border(Clipping clipping, std::span<const float> row, const float* importance, DType to);

}  // namespace mneme
