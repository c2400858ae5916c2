// Products with AVX-512 F, BW, DQ, VL, VNNI, BF16 and VPOPCNTDQ.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

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

#define MNEME_TARGET avx512

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vpopcntdq")

#include "kernels/products/avx512-isa.h"
//
#include "kernels/products/activations-inl.h"
#include "kernels/products/look_up_avx2-inl.h"
//
#include "kernels/products/aqlm_tables-inl.h"
#include "kernels/products/bit_planes-inl.h"
#include "kernels/products/stripes-inl.h"

HWY_POP_ATTRIBUTES

namespace mneme::kernels::products {

const ProductTable& avx512_table() {
  static constexpr ProductTable kTable = {
      &avx512::find_entry, &avx512::plane_entry,     &avx512::signs_entry,         &avx512::quantize,
      &avx512::to_bf16,    &avx512::quantize_planes, &avx512::make_look_up_tables, &avx512::look_up};
  return kTable;
}

}  // namespace mneme::kernels::products

#endif
