// Products of coded matrices with AVX2, FMA and F16C.
#if defined(__x86_64__)

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/coded/job.h"
#include "kernels/prefetch.h"
#include "kernels/products/target.h"

#define MNEME_TARGET avx2

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c")

#include "kernels/products/avx2-isa.h"
//
#include "kernels/coded/multiply-inl.h"

HWY_POP_ATTRIBUTES

namespace mneme::kernels::coded {

MultiplyFn avx2_multiply() { return &products::avx2::multiply; }

}  // namespace mneme::kernels::coded

#endif
