// Products with AVX2, FMA and F16C.
#if defined(__x86_64__)

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/half.h"
#include "kernels/products/formats.h"
#include "kernels/products/product_table.h"
#include "kernels/products/target.h"
#include "tensor/aqlm.h"
#include "tensor/bitstack.h"
#include "tensor/dfloat.h"

#define MNEME_TARGET avx2

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c")

#include "kernels/products/avx2-isa.h"
//
#include "kernels/products/activations-inl.h"
#include "kernels/products/look_up_avx2-inl.h"
//
#include "kernels/products/aqlm_tables-inl.h"
#include "kernels/products/bit_planes-inl.h"
#include "kernels/products/stripes-inl.h"

HWY_POP_ATTRIBUTES

namespace mneme::kernels::products {

const ProductTable& avx2_table() {
  static constexpr ProductTable kTable = {
      &avx2::find_entry, &avx2::plane_entry,     &avx2::signs_entry,         &avx2::quantize,
      &avx2::to_bf16,    &avx2::quantize_planes, &avx2::make_look_up_tables, &avx2::look_up};
  return kTable;
}

}  // namespace mneme::kernels::products

#endif
