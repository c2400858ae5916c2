// Products in portable C++: the scalar twin of the other targets, and what 64-bit Arm runs.
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

#define MNEME_TARGET portable

#include "kernels/products/portable-isa.h"
//
#include "kernels/products/activations-inl.h"
#include "kernels/products/look_up_portable-inl.h"
//
#include "kernels/products/aqlm_tables-inl.h"
#include "kernels/products/bit_planes-inl.h"
#include "kernels/products/stripes-inl.h"

namespace mneme::kernels::products {

const ProductTable& portable_table() {
  static constexpr ProductTable kTable = {
      &portable::find_entry, &portable::plane_entry,     &portable::signs_entry,         &portable::quantize,
      &portable::to_bf16,    &portable::quantize_planes, &portable::make_look_up_tables, &portable::look_up};
  return kTable;
}

}  // namespace mneme::kernels::products
