#pragma once

#include "kernels/products/format.h"

// Levels of a packed block of 32 columns from its code planes. Compiled once a target with that target's Isa.
namespace mneme::kernels::products::MNEME_TARGET {

/// Bits [shift, shift + 2) of `field` moved to bits [to, to + 2), for to = 0, 2 or 4.
template <size_t kShift, size_t kTo>
MNEME_INLINE Isa::Bytes two_bits(Isa::Bytes field) {
  constexpr auto kMask = static_cast<uint8_t>(3u << kTo);
  if constexpr (kShift >= kTo) return Isa::mask(Isa::shift_right<kShift - kTo>(field), kMask);
  if constexpr (kShift < kTo) return Isa::mask(Isa::shift_left<kTo - kShift>(field), kMask);
}

/// Bit `kShift` of `field` moved to bit `kTo`.
template <size_t kShift, size_t kTo>
MNEME_INLINE Isa::Bytes one_bit(Isa::Bytes field) {
  constexpr auto kMask = static_cast<uint8_t>(1u << kTo);
  if constexpr (kShift >= kTo) return Isa::mask(Isa::shift_right<kShift - kTo>(field), kMask);
  if constexpr (kShift < kTo) return Isa::mask(Isa::shift_left<kTo - kShift>(field), kMask);
}

MNEME_INLINE void nibble_plane(const uint8_t* plane, Isa::Bytes (&codes)[8]) {
  for (size_t v = 0; v < 4; ++v) {
    const Isa::Bytes both = Isa::load_bytes(plane + v * kVectorBytes);
    codes[v] = Isa::mask(both, 15);
    codes[v + 4] = Isa::mask(Isa::shift_right<4>(both), 15);
  }
}

MNEME_INLINE void two_plane(const uint8_t* plane, Isa::Bytes (&codes)[8]) {
  for (size_t v = 0; v < 2; ++v) {
    const Isa::Bytes field = Isa::load_bytes(plane + v * kVectorBytes);
    codes[4 * v] = two_bits<0, 0>(field);
    codes[4 * v + 1] = two_bits<2, 0>(field);
    codes[4 * v + 2] = two_bits<4, 0>(field);
    codes[4 * v + 3] = two_bits<6, 0>(field);
  }
}

MNEME_INLINE void add_two_plane(const uint8_t* plane, Isa::Bytes (&codes)[8]) {
  for (size_t v = 0; v < 2; ++v) {
    const Isa::Bytes field = Isa::load_bytes(plane + v * kVectorBytes);
    codes[4 * v] = Isa::merge(codes[4 * v], two_bits<0, 4>(field));
    codes[4 * v + 1] = Isa::merge(codes[4 * v + 1], two_bits<2, 4>(field));
    codes[4 * v + 2] = Isa::merge(codes[4 * v + 2], two_bits<4, 4>(field));
    codes[4 * v + 3] = Isa::merge(codes[4 * v + 3], two_bits<6, 4>(field));
  }
}

MNEME_INLINE void one_plane(const uint8_t* plane, Isa::Bytes (&codes)[8]) {
  const Isa::Bytes field = Isa::load_bytes(plane);
  codes[0] = one_bit<0, 0>(field);
  codes[1] = one_bit<1, 0>(field);
  codes[2] = one_bit<2, 0>(field);
  codes[3] = one_bit<3, 0>(field);
  codes[4] = one_bit<4, 0>(field);
  codes[5] = one_bit<5, 0>(field);
  codes[6] = one_bit<6, 0>(field);
  codes[7] = one_bit<7, 0>(field);
}

template <size_t kTo>
MNEME_INLINE void add_one_plane(const uint8_t* plane, Isa::Bytes (&codes)[8]) {
  const Isa::Bytes field = Isa::load_bytes(plane);
  codes[0] = Isa::merge(codes[0], one_bit<0, kTo>(field));
  codes[1] = Isa::merge(codes[1], one_bit<1, kTo>(field));
  codes[2] = Isa::merge(codes[2], one_bit<2, kTo>(field));
  codes[3] = Isa::merge(codes[3], one_bit<3, kTo>(field));
  codes[4] = Isa::merge(codes[4], one_bit<4, kTo>(field));
  codes[5] = Isa::merge(codes[5], one_bit<5, kTo>(field));
  codes[6] = Isa::merge(codes[6], one_bit<6, kTo>(field));
  codes[7] = Isa::merge(codes[7], one_bit<7, kTo>(field));
}

/// Levels of codes, for types whose codes are not their levels. `special` is the row of TileScales::special for the
/// block.
template <class Format>
MNEME_INLINE Isa::Bytes code_levels(Isa::Bytes codes, const uint32_t* special) {
  if constexpr (Format::kSpecialCode >= 0) {
    constexpr auto kCode = static_cast<uint8_t>(Format::kSpecialCode);
    return Isa::template look_up_but<kCode>(Format::kLevels, codes,
                                            Isa::load_bytes(reinterpret_cast<const uint8_t*>(special)));
  } else {
    if constexpr (Format::kDoubled) return Isa::template shift_left<1>(codes);  // below 128, so no bit leaves its byte
    if constexpr (!Format::kDoubled) return Isa::look_up(Format::kLevels, codes);
  }
}

/// True for types whose levels are not their codes.
template <class Format>
constexpr bool has_levels() {
  return Format::kLevels != nullptr || Format::kDoubled;
}

/// TritCode::level() of each byte.
MNEME_INLINE Isa::Bytes trit_levels(Isa::Bytes e) {
  return Isa::mask(Isa::average(e, Isa::average(e, Isa::set_bytes(TritCode::kOffset))), 0xc0);
}

/// The levels of quad `q` of a tile of kTrits, which are asked for from 0 to 63 one after the other. `e` keeps what is
/// left of a vector between calls.
MNEME_INLINE Isa::Bytes next_trits(const uint8_t* planes, size_t q, Isa::Bytes& e) {
  e = q % TritCode::kDigits == 0 ? Isa::load_bytes(planes + q / TritCode::kDigits * kVectorBytes)
                                 : Isa::add_bytes(e, Isa::add_bytes(e, e));
  return trit_levels(e);
}

/// The eight quads of a block: codes, or levels for types with a table.
template <class Format>
MNEME_INLINE void block_levels(const uint8_t* planes, const uint32_t* special, Isa::Bytes (&levels)[8]) {
  constexpr size_t kNibbleBytes = 4 * kVectorBytes, kTwoBytes = 2 * kVectorBytes;
  if constexpr (Format::kPlanes == Planes::kByte) {
    for (size_t q = 0; q < 8; ++q) levels[q] = Isa::load_bytes(planes + q * kVectorBytes);
  }
  if constexpr (Format::kPlanes == Planes::kNibble) nibble_plane(planes, levels);
  if constexpr (Format::kPlanes == Planes::kNibbleOne) {
    nibble_plane(planes, levels);
    add_one_plane<4>(planes + kNibbleBytes, levels);
  }
  if constexpr (Format::kPlanes == Planes::kNibbleTwo) {
    nibble_plane(planes, levels);
    add_two_plane(planes + kNibbleBytes, levels);
  }
  if constexpr (Format::kPlanes == Planes::kNibbleTwoOne) {
    nibble_plane(planes, levels);
    add_two_plane(planes + kNibbleBytes, levels);
    add_one_plane<6>(planes + kNibbleBytes + kTwoBytes, levels);
  }
  if constexpr (Format::kPlanes == Planes::kOne) one_plane(planes, levels);
  if constexpr (Format::kPlanes == Planes::kTwo) two_plane(planes, levels);
  if constexpr (Format::kPlanes == Planes::kTwoOne) {
    two_plane(planes, levels);
    add_one_plane<2>(planes + kTwoBytes, levels);
  }
  if constexpr (has_levels<Format>()) {
    for (size_t q = 0; q < 8; ++q) levels[q] = code_levels<Format>(levels[q], special);
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
