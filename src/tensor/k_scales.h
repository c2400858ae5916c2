#pragma once

#include <cstddef>

#include "tensor/block_fields.h"

/// The packed 6-bit scales of the K formats, 12 bytes each.
namespace mneme::codecs {

/// Q4_K and Q5_K: eight scales and eight minima, 0 to 63. The first four keep their low six bits together; the top two
/// bits of their bytes carry the top two bits of the last four.
inline void unpack_q4_scales(const std::byte* s, int scales[8], int minima[8]) {
  for (size_t k = 0; k < 4; ++k) {
    scales[k] = load_u8(s + k) & 63;
    minima[k] = load_u8(s + k + 4) & 63;
    scales[k + 4] = (load_u8(s + k + 8) & 15) | (load_u8(s + k) >> 6) << 4;
    minima[k + 4] = (load_u8(s + k + 8) >> 4) | (load_u8(s + k + 4) >> 6) << 4;
  }
}

inline void pack_q4_scales(const int scales[8], const int minima[8], std::byte* s) {
  for (size_t k = 0; k < 4; ++k) {
    store_u8(s + k, scales[k] | (scales[k + 4] >> 4) << 6);
    store_u8(s + k + 4, minima[k] | (minima[k + 4] >> 4) << 6);
    store_u8(s + k + 8, (scales[k + 4] & 15) | (minima[k + 4] & 15) << 4);
  }
}

/// Q3_K: sixteen scales from -32 to 31, stored with 32 added: low four bits in bytes 0-7, high two in bytes 8-11.
inline void unpack_q3_scales(const std::byte* s, int scales[16]) {
  for (size_t k = 0; k < 16; ++k) {
    const int low = (load_u8(s + k % 8) >> (k < 8 ? 0 : 4)) & 15;
    const int high = (load_u8(s + 8 + k % 4) >> (2 * (k / 4))) & 3;
    scales[k] = (low | high << 4) - 32;
  }
}

inline void pack_q3_scales(const int scales[16], std::byte* s) {
  for (size_t k = 0; k < 12; ++k) store_u8(s + k, 0);
  for (size_t k = 0; k < 16; ++k) {
    const int stored = scales[k] + 32;
    s[k % 8] |= static_cast<std::byte>((stored & 15) << (k < 8 ? 0 : 4));
    s[8 + k % 4] |= static_cast<std::byte>((stored >> 4) << (2 * (k / 4)));
  }
}

}  // namespace mneme::codecs
