#pragma once

namespace mneme::bench {

/// Operations per second (a product and a sum count two) of dot-product instructions whose operands all stay in
/// registers.
struct ProductPeak {
  double int8;  ///< Four 8-bit products a lane (VPDPBUSD).
  double bf16;  ///< Two bfloat16 products a lane (VDPBF16PS).
};

/// What all threads of the pool reach together, one run of a few milliseconds each: the ceiling of the product kernels.
/// Zeros where the active target is not AVX-512.
ProductPeak product_peak();

}  // namespace mneme::bench
