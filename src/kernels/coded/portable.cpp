// Products of coded matrices on any processor.
#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/coded/job.h"
#include "kernels/prefetch.h"
#include "kernels/products/target.h"

#define MNEME_TARGET portable

#include "kernels/products/portable-isa.h"
//
#include "kernels/coded/multiply-inl.h"

namespace mneme::kernels::coded {

MultiplyFn portable_multiply() { return &products::portable::multiply; }

}  // namespace mneme::kernels::coded
