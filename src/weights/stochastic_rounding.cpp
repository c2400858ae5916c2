#include "weights/stochastic_rounding.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "base/philox.h"
#include "tensor/bipolar.h"
#include "tensor/block_fields.h"

namespace mneme {
namespace {

/// Levels low, low + unit, ..., high, times the scale.
struct Grid {
  int low = 0, high = 0, unit = 1;
};

Grid grid_of(DType to) {
  if (const int bits = bipolar::bits_of(to); bits > 1) return {-bipolar::largest(bits), bipolar::largest(bits), 2};
  switch (to) {
    case DType::kQ4_0:
      return {-8, 7, 1};
    case DType::kQ5_0:
      return {-16, 15, 1};
    case DType::kQ8_0:
      return {-127, 127, 1};
    default:
      return {};
  }
}

}  // namespace

bool can_round_stochastically(DType to) {
  return grid_of(to).high > 0;
}

uint64_t rounding_stream(std::string_view tensor_name) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, for it has to be the same everywhere
  for (const char c : tensor_name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

void round_stochastically(std::span<float> row, DType to, uint64_t seed, uint64_t stream, uint64_t first) {
  const DTypeInfo& info = dtype_info(to);
  const Grid grid = grid_of(to);
  const auto low = static_cast<double>(grid.low), unit = static_cast<double>(grid.unit),
             top = static_cast<double>((grid.high - grid.low) / grid.unit);
  const size_t block = info.block_elements;
  assert(can_round_stochastically(to) && row.size() % block == 0);
  std::vector<std::byte> stored(info.block_bytes);
  PhiloxStream random(seed, stream, first);
  for (size_t begin = 0; begin < row.size(); begin += block) {
    const std::span<float> x = row.subspan(begin, block);
    info.encode(x.data(), nullptr, stored.data(), block);
    const float scale = codecs::load_f16(stored.data());
    const bool has_grid = scale != 0.0f && std::isfinite(scale);
    const float peak = codecs::signed_peak(x.data(), block);
    bool peak_is_done = false;
    for (float& value : x) {
      double u = static_cast<double>(random.next_float());  // drawn for every element: positions stay those of elements
      if (!has_grid) continue;
      if (value == peak && !peak_is_done) {
        u = 0.5;
        peak_is_done = true;
      }
      const double place = (static_cast<double>(value) / static_cast<double>(scale) - low) / unit;
      const auto level = grid.low + grid.unit * static_cast<int>(std::clamp(std::floor(place + u), 0.0, top));
      value = scale * static_cast<float>(level);
    }
  }
}

}  // namespace mneme
