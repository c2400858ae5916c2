// Products in portable C++: the scalar twin of the other targets, and what 64-bit Arm runs.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/products/formats.h"
#include "kernels/products/product_table.h"
#include "kernels/products/target.h"
#include "tensor/bitstack.h"
#include "tensor/dfloat.h"

#define MNEME_TARGET portable

#include "kernels/products/portable-isa.h"
//
#include "kernels/products/activations-inl.h"
#include "kernels/products/bit_planes-inl.h"
#include "kernels/products/stripes-inl.h"

namespace mneme::kernels::products {

const ProductTable& portable_table() {
  static constexpr ProductTable kTable = {&portable::find_entry, &portable::plane_entry, &portable::signs_entry,
                                          &portable::quantize,   &portable::to_bf16,     &portable::quantize_planes};
  return kTable;
}

}  // namespace mneme::kernels::products
