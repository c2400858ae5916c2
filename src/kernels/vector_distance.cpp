#include "kernels/vector_distance.h"

#include "kernels/vector_distance_tables.h"

namespace mneme::kernels {

const DistanceOps& distance_ops() {
  const DistanceOps* simd = simd_distance_ops(active_target());
  return simd != nullptr ? *simd : scalar_distance_ops();
}

}  // namespace mneme::kernels
