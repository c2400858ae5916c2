#pragma once

#include <cstddef>
#include <cstdint>

/// Squared Euclidean distances between a vector and a stored one, in the element types that vector indexes store. Each
/// runs on the calling thread; results are the same on all targets to 1e-5 relative.
namespace mneme::kernels {

/// The dispatch table of distance kernels; one per target. Halves lie at even addresses.
struct DistanceOps {
  const char* target;  ///< "scalar", "avx2", "avx512", "neon"

  float (*l2_f32)(const float* a, const float* b, size_t n);                   ///< sum (a - b)^2
  float (*l2_f16)(const float* a, const void* b, size_t n);                    ///< b in IEEE half precision
  float (*l2_f16_f16)(const void* a, const void* b, size_t n);                 ///< both in half precision
  float (*l2_i8)(const float* a, const int8_t* codes, float scale, size_t n);  ///< sum (a - scale * code)^2
};

/// The table of the best target of this processor, or of MNEME_CPU; see vector_ops().
const DistanceOps& distance_ops();

}  // namespace mneme::kernels
