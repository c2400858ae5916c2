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

/// The eight quads of a block: codes, or levels for types with a table.
template <class Format>
MNEME_INLINE void block_levels(const uint8_t* planes, Isa::Bytes (&levels)[8]) {
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
  if constexpr (Format::kPlanes == Planes::kTwo) two_plane(planes, levels);
  if constexpr (Format::kPlanes == Planes::kTwoOne) {
    two_plane(planes, levels);
    add_one_plane<2>(planes + kTwoBytes, levels);
  }
  if constexpr (Format::kLevels != nullptr) {
    for (size_t q = 0; q < 8; ++q) levels[q] = Isa::look_up(Format::kLevels, levels[q]);
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
