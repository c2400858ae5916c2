// Codes of a chunk (coded/job.h) as bytes; included by multiply-inl.h.
#pragma once

#include "kernels/coded/job.h"

namespace mneme::kernels::products::MNEME_TARGET {

/// unpack() of kBits: quads[q] has the codes of depths [4 q, 4 q + 4) of 16 lanes.
template <size_t kBits>
struct Chunk;

template <>
struct Chunk<2> {
  static constexpr size_t kQuads = 4;
  static MNEME_INLINE void unpack(const uint8_t* p, Isa::Bytes (&quads)[kQuads]) {
    const Isa::Bytes v = Isa::load_bytes(p);
    quads[0] = Isa::mask(v, 3);
    quads[1] = Isa::mask(Isa::shift_right<2>(v), 3);
    quads[2] = Isa::mask(Isa::shift_right<4>(v), 3);
    quads[3] = Isa::mask(Isa::shift_right<6>(v), 3);
  }
};

template <>
struct Chunk<3> {
  static constexpr size_t kQuads = 8;
  static MNEME_INLINE void unpack(const uint8_t* p, Isa::Bytes (&quads)[kQuads]) {
    const Isa::Bytes a = Isa::load_bytes(p), b = Isa::load_bytes(p + coded::kVectorBytes);
    const Isa::Bytes high = Isa::load_bytes(p + 2 * coded::kVectorBytes);
    quads[0] = Isa::merge(Isa::mask(a, 3), Isa::mask(Isa::shift_left<2>(high), 4));
    quads[1] = Isa::merge(Isa::mask(Isa::shift_right<2>(a), 3), Isa::mask(Isa::shift_left<1>(high), 4));
    quads[2] = Isa::merge(Isa::mask(Isa::shift_right<4>(a), 3), Isa::mask(high, 4));
    quads[3] = Isa::merge(Isa::mask(Isa::shift_right<6>(a), 3), Isa::mask(Isa::shift_right<1>(high), 4));
    quads[4] = Isa::merge(Isa::mask(b, 3), Isa::mask(Isa::shift_right<2>(high), 4));
    quads[5] = Isa::merge(Isa::mask(Isa::shift_right<2>(b), 3), Isa::mask(Isa::shift_right<3>(high), 4));
    quads[6] = Isa::merge(Isa::mask(Isa::shift_right<4>(b), 3), Isa::mask(Isa::shift_right<4>(high), 4));
    quads[7] = Isa::merge(Isa::mask(Isa::shift_right<6>(b), 3), Isa::mask(Isa::shift_right<5>(high), 4));
  }
};

template <>
struct Chunk<4> {
  static constexpr size_t kQuads = 2;
  static MNEME_INLINE void unpack(const uint8_t* p, Isa::Bytes (&quads)[kQuads]) {
    const Isa::Bytes v = Isa::load_bytes(p);
    quads[0] = Isa::mask(v, 15);
    quads[1] = Isa::mask(Isa::shift_right<4>(v), 15);
  }
};

template <>
struct Chunk<8> {
  static constexpr size_t kQuads = 1;
  static MNEME_INLINE void unpack(const uint8_t* p, Isa::Bytes (&quads)[kQuads]) { quads[0] = Isa::load_bytes(p); }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
