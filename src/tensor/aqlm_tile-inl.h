#pragma once

// Decoding of AQLM matrices (tensor/aqlm.h). The loops are plain so that the compiler vectorises them for each target;
// included once a target, with MNEME_TARGET its name.
#include <bit>
#include <cstring>

#include "base/half.h"
#include "tensor/aqlm.h"

namespace mneme::aqlm::MNEME_TARGET {

/// Codes of the 32 rows of a run.
inline void unpack_run(const uint8_t* run, uint32_t bits, uint16_t* codes) {
  for (size_t r = 0; r < kStripe; ++r) codes[r] = 0;
  uint32_t done = 0;
  for (; bits - done >= 8; done += 8, run += kStripe) {
    for (size_t r = 0; r < kStripe; ++r) codes[r] = static_cast<uint16_t>(codes[r] | run[r] << done);
  }
  const uint32_t rest = bits - done;
  for (uint32_t width = 4; width > 0; width /= 2) {
    if ((rest & width) == 0) continue;
    const size_t n = kStripe * width / 8, parts = 8 / width;  // bytes of the plane; rows of a byte, n apart
    const uint32_t mask = (1u << width) - 1;
    if (width == 1) {  // the bits of a word follow one another
      for (size_t r = 0; r < kStripe; ++r) {
        codes[r] = static_cast<uint16_t>(codes[r] | (run[r / 8] >> (r % 8) & 1u) << done);
      }
    } else {
      for (size_t part = 0; part < parts; ++part) {
        for (size_t i = 0; i < n; ++i) {
          const size_t r = part * n + i;
          codes[r] = static_cast<uint16_t>(codes[r] | (run[i] >> (part * width) & mask) << done);
        }
      }
    }
    done += width;
    run += n;
  }
}

template <Entries kEntries>
inline float entry_value(const uint8_t* p, size_t i) {
  if constexpr (kEntries == Entries::kInt8) return static_cast<float>(static_cast<int8_t>(p[i]));
  uint16_t half = 0;
  std::memcpy(&half, p + 2 * i, sizeof half);
  return std::bit_cast<float>(uint32_t{half} << 16);
}

/// Rows [first, first + n) of a stripe, groups [first_group, last_group): out[row * stride + column].
template <size_t kGroup, Entries kEntries>
void decode_groups(const Layout& at, const uint8_t* stream, size_t stripe, size_t first, size_t n, size_t first_group,
                   size_t last_group, float* out, size_t stride) {
  const size_t n_books = at.scheme.codebooks, bytes = kGroup * at.value_bytes();
  float scales[kStripe], factors[kMostCodebooks];
  std::memcpy(factors, stream + kFactorsAt, n_books * sizeof(float));
  for (size_t r = 0; r < n; ++r) {
    uint16_t half = 0;
    std::memcpy(&half, stream + at.scales() + 2 * (stripe * kStripe + first + r), sizeof half);
    scales[r] = f16_to_f32(half);
  }
  const uint8_t* run = stream + at.run(stripe, first_group, 0);
  const size_t run_bytes = at.run_bytes();
  uint16_t codes[kMostCodebooks][kStripe];
  for (size_t j = first_group; j < last_group; ++j, out += kGroup) {
    for (size_t m = 0; m < n_books; ++m, run += run_bytes) unpack_run(run, at.scheme.bits, codes[m]);
    for (size_t r = 0; r < n; ++r) {
      float sum[kGroup] = {};
      for (size_t m = 0; m < n_books; ++m) {
        const uint8_t* entry = stream + at.book(m) + bytes * codes[m][first + r];
        for (size_t i = 0; i < kGroup; ++i) sum[i] += factors[m] * entry_value<kEntries>(entry, i);
      }
      for (size_t i = 0; i < kGroup; ++i) out[r * stride + i] = scales[r] * sum[i];
    }
  }
}

/// The same for any scheme.
inline void decode_rows(const Layout& at, const std::byte* stream, size_t stripe, size_t first, size_t n,
                        size_t first_group, size_t last_group, float* out, size_t stride) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(stream);
  const auto run = [&]<size_t kGroup>() {
    if (at.entries == Entries::kInt8) {
      decode_groups<kGroup, Entries::kInt8>(at, bytes, stripe, first, n, first_group, last_group, out, stride);
    } else {
      decode_groups<kGroup, Entries::kBf16>(at, bytes, stripe, first, n, first_group, last_group, out, stride);
    }
  };
  switch (at.scheme.group) {
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    case 4:
      return run.template operator()<4>();
    default:
      return run.template operator()<8>();
  }
}

}  // namespace mneme::aqlm::MNEME_TARGET
