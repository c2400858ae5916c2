#pragma once

#include "kernels/cpu.h"
#include "kernels/vector_distance.h"

namespace mneme::kernels {

/// The readable definition of every distance, sums in double.
const DistanceOps& scalar_distance_ops();

/// The table of a SIMD target, or null where this build has no code for it.
const DistanceOps* simd_distance_ops(Target target);

}  // namespace mneme::kernels
