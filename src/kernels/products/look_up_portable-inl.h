#pragma once

#include "tensor/aqlm_tile-inl.h"

// Look-ups of 32 codes in tables of bytes, in plain loops: the definition. Compiled once a target without AVX2.
namespace mneme::kernels::products::MNEME_TARGET {

struct LookUp {
  struct Sums {
    int16_t v[aqlm::kStripe];
  };
  static MNEME_INLINE Sums zero() { return {}; }

  /// sums += table[code] for the 32 codes of a run of kBits bits.
  template <unsigned kBits>
  static MNEME_INLINE void add(const int8_t* table, const uint8_t* run, Sums& sums) {
    uint16_t codes[aqlm::kStripe];
    aqlm::MNEME_TARGET::unpack_run(run, kBits, codes);
    for (size_t r = 0; r < aqlm::kStripe; ++r) sums.v[r] = static_cast<int16_t>(sums.v[r] + table[codes[r]]);
  }
  /// out[r] += scale * sums[r]
  static MNEME_INLINE void flush(const Sums& sums, float scale, float* out) {
    for (size_t r = 0; r < aqlm::kStripe; ++r) out[r] += scale * static_cast<float>(sums.v[r]);
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
