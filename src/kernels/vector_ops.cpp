#include "kernels/vector_ops.h"

#include "kernels/vector_ops_tables.h"

namespace mneme::kernels {

const VectorOps& vector_ops() {
  const VectorOps* simd = simd_vector_ops(active_target());
  return simd != nullptr ? *simd : scalar_vector_ops();
}

}  // namespace mneme::kernels
