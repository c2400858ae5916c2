#pragma once

#include "kernels/matmul.h"
#include "kernels/products/format.h"

/// Packed matrices: stripes of 16 rows, the last one padded by repeating rows, in tiles of 256 columns (the last may be
/// narrower). Block types lie as packed_tile() in formats.h says. Of the others a stripe is its tiles one after
/// another: F32 and F16 [column][row]; BF16 [pair of columns][row][2], an odd last column paired with zero. One layout
/// serves all targets.
namespace mneme::kernels::products {

/// Bytes of a packed matrix, or 0 when the type has no packed form of about its own size.
size_t packed_size(DType dtype, size_t rows, size_t columns);

/// Packs stripes [first, last) of `plain` into the whole matrix at `out`.
void pack_stripes(const Matrix& plain, size_t first, size_t last, std::byte* out);

/// The same for products by bit-planes: each group of 128 columns of a stripe is its 16 scales, then planes [bit][word
/// of 32 columns][row].
void pack_plane_stripes(const Matrix& plain, size_t first, size_t last, std::byte* out);

}  // namespace mneme::kernels::products
