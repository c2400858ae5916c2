#include "tensor/exact_conversion.h"

#include <array>
#include <cassert>
#include <cmath>

#include "tensor/block_fields.h"

namespace mneme {
namespace {

/// Types whose values are integers of at most 8 bits times one half-precision scale a block.
struct IntegerGrid {
  DType dtype;
  size_t scale_offset;           ///< Of the scale in a block.
  uint16_t scale_mask = 0xffff;  ///< Bits of the word there that are the scale.
  bool ternary = false;
};

constexpr IntegerGrid kGrids[] = {
    {DType::kQ4_0, 0},
    {DType::kQ5_0, 0},
    {DType::kTQ1_0, 52, 0xffff, true},
    {DType::kTQ2_0, 64, 0xffff, true},
    {DType::kBitMod3, 0, 0x7ffe},
    {DType::kBitMod4, 0, 0x7ffe},
    {DType::kBipolar1, 0},
    {DType::kBipolar2, 0},
    {DType::kBipolar3, 0},
    {DType::kBipolar4, 0},
    {DType::kBipolar5, 0},
    {DType::kBipolar6, 0},
    {DType::kBipolar7, 0},
};

const IntegerGrid* find_grid(DType dtype) {
  for (const IntegerGrid& grid : kGrids) {
    if (grid.dtype == dtype) return &grid;
  }
  return nullptr;
}

/// One block of 32 as `to`: the scale's bits as they are, then levels.
void store_levels(DType to, uint16_t scale, const std::array<int, 32>& levels, std::byte* out) {
  codecs::store_as(out, scale);
  if (to == DType::kQ8_0) {
    for (size_t i = 0; i < 32; ++i) codecs::store_u8(out + 2 + i, levels[i]);
  } else {
    for (size_t i = 0; i < 16; ++i) codecs::store_u8(out + 2 + i, (levels[i] + 8) | (levels[i + 16] + 8) << 4);
  }
}

}  // namespace

bool converts_exactly(DType from, DType to) {
  if (from == to) return true;
  if (to == DType::kF32)
    return !is_stream(from) && dtype_info(from).decode != nullptr && from != DType::kF64 && from != DType::kI64;
  const IntegerGrid* grid = find_grid(from);
  if (grid == nullptr) return false;
  const bool to_ternary = to == DType::kTQ1_0 || to == DType::kTQ2_0;
  return to == DType::kQ8_0 || (grid->ternary && (to == DType::kQ4_0 || to_ternary));
}

void convert_exactly(DType from, DType to, const std::byte* in, std::byte* out, size_t n) {
  assert(converts_exactly(from, to) && to != DType::kF32);
  const DTypeInfo &source = dtype_info(from), &target = dtype_info(to);
  const IntegerGrid& grid = *find_grid(from);
  float values[256];
  for (size_t done = 0; done < n; done += source.block_elements, in += source.block_bytes) {
    source.decode(in, values, source.block_elements);
    if (target.block_elements > 32) {  // one ternary pack to the other: its encoder finds the same scale and digits
      target.encode(values, nullptr, out + done / target.block_elements * target.block_bytes, source.block_elements);
      continue;
    }
    const auto scale = static_cast<uint16_t>(codecs::load_as<uint16_t>(in + grid.scale_offset) & grid.scale_mask);
    const float inverse = codecs::inverse_or_zero(f16_to_f32(scale));
    for (size_t i = 0; i < source.block_elements; i += 32) {
      std::array<int, 32> levels;
      for (size_t j = 0; j < 32; ++j) levels[j] = static_cast<int>(std::lround(values[i + j] * inverse));
      store_levels(to, scale, levels, out + (done + i) / 32 * target.block_bytes);
    }
  }
}

}  // namespace mneme
