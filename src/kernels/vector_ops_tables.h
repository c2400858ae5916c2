#pragma once

#include "kernels/cpu.h"
#include "kernels/vector_ops.h"

namespace mneme::kernels {

/// The readable definition of every vector kernel, reductions in double.
const VectorOps& scalar_vector_ops();

/// The table of a SIMD target, or null where this build has no code for it.
const VectorOps* simd_vector_ops(Target target);

}  // namespace mneme::kernels
