#pragma once

#include "kernels/products/activations-inl.h"
#include "tensor/bitstack.h"

// Tiles of a BitStack matrix (tensor/bitstack.h) from its blocks. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

/// Columns [first, first + n), n <= 256, of a stripe as bfloat16 in the order [pair of columns][row][2]; an odd last
/// column is paired with zero. Sums are in f32, rounded once.
inline void decode_stack(const Matrix& matrix, size_t stripe, size_t first, size_t n, uint8_t* out) {
  const bitstack::BlockList& list = *matrix.blocks;
  const bitstack::BlockLayout layout{matrix.rows, matrix.columns, list.vectors};
  alignas(64) float tile[kTileColumns + 1][kStripeRows];
  alignas(64) float right[bitstack::kMostVectors][kTileColumns];
  for (size_t c = 0; c <= n; ++c) Isa::store_floats(tile[c], Isa::zero_floats());
  const size_t k = list.vectors;
  for (size_t i = 0; i < list.n_blocks; ++i) {
    const auto* block = reinterpret_cast<const uint8_t*>(list.block(i));
    Isa::Floats left[bitstack::kMostVectors];
    for (size_t j = 0; j < k; ++j) {
      left[j] = Isa::load_halves(block + layout.u_offset() + 2 * (j * layout.padded_rows() + stripe * kStripeRows));
      const uint8_t* v = block + layout.v_offset() + 2 * (j * layout.padded_columns() + first);
      for (size_t c = 0; c < n; c += kStripeRows) Isa::store_floats(right[j] + c, Isa::load_halves(v + 2 * c));
    }
    for (size_t c = 0; c < n; ++c) {
      const uint8_t* words = block + layout.words(stripe, first + c);
      Isa::Floats magnitude = Isa::multiply(left[0], Isa::set_floats(right[0][c]));
      for (size_t j = 1; j < k; ++j) magnitude = Isa::multiply_add(left[j], Isa::set_floats(right[j][c]), magnitude);
      Isa::store_floats(tile[c], Isa::add_signed(Isa::load_floats(tile[c]), magnitude, words, bitstack::sign_bit(c)));
    }
  }
  for (size_t c = 0; c < n; c += 2) {
    uint16_t words[2][kStripeRows], pairs[kStripeRows][2];
    to_bf16(tile[c], 2 * kStripeRows, words[0]);
    for (size_t r = 0; r < kStripeRows; ++r) {
      pairs[r][0] = words[0][r];
      pairs[r][1] = words[1][r];
    }
    std::memcpy(out + c / 2 * kVectorBytes, pairs, sizeof pairs);
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
