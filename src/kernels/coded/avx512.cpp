// Products of coded matrices with AVX-512 F, BW, DQ, VL, VNNI and BF16.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/coded/job.h"
#include "kernels/prefetch.h"
#include "kernels/products/target.h"

#define MNEME_TARGET avx512

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")

#include "kernels/products/avx512-isa.h"
//
#include "kernels/coded/multiply-inl.h"

HWY_POP_ATTRIBUTES

namespace mneme::kernels::coded {

MultiplyFn avx512_multiply() { return &products::avx512::multiply; }

}  // namespace mneme::kernels::coded

#endif
