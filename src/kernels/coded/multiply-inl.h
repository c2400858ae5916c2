// Products of coded matrices for one target; included by the file of each target behind its Isa.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/coded/job.h"
#include "kernels/products/target.h"

namespace mneme::kernels::products::MNEME_TARGET {

using coded::Job;
using coded::kTileLanes;

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

/// Depth of the scratch: the largest one rounded up to a chunk of 32.
constexpr size_t kPaddedDepth = (coded::kMaxDim + 31) / 32 * 32;
constexpr size_t kMaxGroups = coded::kMaxDim / 32;

/// Rows of x as integers v = 128 high + low, high in [-127, 127] and low in [0, 127], with a scale for each group.
template <size_t kRows>
struct IntegerRows {
  alignas(64) int8_t high[kRows][kPaddedDepth];
  alignas(64) int8_t low[kRows][kPaddedDepth];
  float scale[kMaxGroups][kRows];
  float offset[kMaxGroups][kRows];      ///< Sum of x * zero, or of x, over the group.
  int32_t start_high[kMaxGroups][kRows], start_low[kMaxGroups][kRows];  ///< Where the sums of products start.
};

/// Fills row r, depths [begin, end) of `out` as group g from v, whose entries up to the next multiple of 16 are zero; begin is
/// a multiple of 16.
template <size_t kBits, size_t kRows>
MNEME_INLINE void to_integers(const float* v, size_t begin, size_t end, size_t g, size_t r, IntegerRows<kRows>& out) {
  constexpr float kLargest = 127 * 128;
  Isa::Ints bits = Isa::set_ints(0);
  for (size_t i = begin; i < end; i += 16) bits = Isa::larger_bits(bits, Isa::load_floats(v + i));
  const uint32_t max_bits = Isa::largest_bits(bits);
  const float max = std::bit_cast<float>(max_bits);
  // Tiny groups keep a scale that has an inverse; NaN and infinity make the scale NaN or infinite.
  const float scale = max_bits == 0 ? 0.0f : std::max(max / kLargest, 1e-36f);
  const float inverse = max_bits == 0 ? 0.0f : 1 / scale;
  for (size_t i = begin; i < end; i += 16) Isa::split(Isa::load_floats(v + i), inverse, &out.high[r][i], &out.low[r][i]);
  out.scale[g][r] = max_bits > 0x7f800000u ? max : scale;
  out.start_high[g][r] = out.start_low[g][r] = 0;
  if constexpr (kBits == 8 && !Isa::kSignedWide) {
    uint32_t sum_high = 0, sum_low = 0;
    for (size_t i = begin; i < end; ++i) {
      sum_high += static_cast<uint32_t>(out.high[r][i]);
      sum_low += static_cast<uint32_t>(out.low[r][i]);
    }
    constexpr uint32_t kMiddle = coded::kMiddleOf8Bits;
    out.start_high[g][r] = static_cast<int32_t>(0u - kMiddle * sum_high);
    out.start_low[g][r] = static_cast<int32_t>(0u - kMiddle * sum_low);
  }
}

/// Sums of code * v over the chunks [first, last) of one tile of lanes.
template <size_t kBits, size_t kRows>
MNEME_INLINE void multiply_tile(const uint8_t* codes, size_t first, size_t last, const IntegerRows<kRows>& x, size_t g,
                                Isa::Floats (&sums)[kRows]) {
  using Codes = Chunk<kBits>;
  constexpr size_t kBytes = coded::chunk_shape(kBits).vectors * coded::kVectorBytes;
  Isa::Ints high[kRows], low[kRows];
  MNEME_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    high[r] = Isa::set_ints(x.start_high[g][r]);
    low[r] = Isa::set_ints(x.start_low[g][r]);
  }
  for (size_t chunk = first; chunk < last; ++chunk) {
    Isa::Bytes quads[Codes::kQuads];
    Codes::unpack(codes + chunk * kBytes, quads);
    MNEME_UNROLL
    for (size_t q = 0; q < Codes::kQuads; ++q) {
      const size_t at = 4 * (chunk * Codes::kQuads + q);
      MNEME_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        high[r] = Isa::dot<kBits == 8>(high[r], quads[q], &x.high[r][at]);
        low[r] = Isa::dot<kBits == 8>(low[r], quads[q], &x.low[r][at]);
      }
    }
  }
  MNEME_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    sums[r] = Isa::multiply_add(Isa::to_floats(high[r]), Isa::set_floats(128), Isa::to_floats(low[r]));
  }
}

/// y[0 .. n) += v for n <= 16.
MNEME_INLINE void add_to(float* y, size_t n, Isa::Floats v) {
  if (n == kTileLanes) {
    Isa::store_floats(y, Isa::add(Isa::load_floats(y), v));
    return;
  }
  alignas(64) float lanes[kTileLanes];
  Isa::store_floats(lanes, v);
  for (size_t i = 0; i < n; ++i) y[i] += lanes[i];
}

/// kRows rows of x, from x on.
template <size_t kBits, size_t kRows>
void multiply_rows(const Job& job, const float* x, float* y) {
  constexpr size_t kChunkDepth = coded::chunk_shape(kBits).depth;
  const size_t tile_bytes = job.n_chunks * coded::chunk_shape(kBits).vectors * coded::kVectorBytes;
  const size_t padded = job.n_chunks * kChunkDepth, vectors = (job.depth + 15) / 16;
  alignas(64) float row[kRows][kPaddedDepth];
  alignas(64) float scaled[kPaddedDepth];
  IntegerRows<kRows> integers;
  for (size_t r = 0; r < kRows; ++r) {
    std::copy_n(x + r * job.x_stride, job.depth, row[r]);
    std::fill(row[r] + job.depth, row[r] + 16 * vectors, 0.0f);
    // Behind the last whole vector; a chunk may reach further than that.
    if (padded > 16 * vectors) {
      std::memset(integers.high[r] + 16 * vectors, 0, padded - 16 * vectors);
      std::memset(integers.low[r] + 16 * vectors, 0, padded - 16 * vectors);
    }
  }
  Isa::Floats sums[kRows];
  if (job.along_lanes) {
    for (size_t g = 0; g * job.group < job.n_lanes; ++g) {
      const float* const scales = job.scales + g * job.group_stride;
      const float* const zeros = job.zeros + g * job.group_stride;
      for (size_t r = 0; r < kRows; ++r) {
        Isa::Floats offset = Isa::zero_floats();
        for (size_t i = 0; i < 16 * vectors; i += 16) {
          const Isa::Floats v = Isa::load_floats(row[r] + i);
          Isa::store_floats(scaled + i, Isa::multiply_add(v, Isa::load_floats(scales + i), Isa::zero_floats()));
          offset = Isa::multiply_add(v, Isa::load_floats(zeros + i), offset);
        }
        integers.offset[0][r] = Isa::sum(offset);
        to_integers<kBits>(scaled, 0, job.depth, 0, r, integers);
      }
      const size_t end = std::min(job.n_lanes, (g + 1) * job.group);
      for (size_t lane = g * job.group; lane < end; lane += kTileLanes) {
        multiply_tile<kBits>(job.codes + lane / kTileLanes * tile_bytes, 0, job.n_chunks, integers, 0, sums);
        MNEME_UNROLL
        for (size_t r = 0; r < kRows; ++r) {
          add_to(y + r * job.y_stride + lane, std::min(kTileLanes, end - lane),
                 Isa::multiply_add(sums[r], Isa::set_floats(integers.scale[0][r]),
                                   Isa::set_floats(integers.offset[0][r])));
        }
      }
    }
    return;
  }
  const size_t n_groups = (job.depth + job.group - 1) / job.group;
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t g = 0; g < n_groups; ++g) {
      const size_t begin = g * job.group, end = std::min(job.depth, begin + job.group);
      Isa::Floats offset = Isa::zero_floats();
      for (size_t i = begin; i < end; i += 16) offset = Isa::add(offset, Isa::load_floats(row[r] + i));
      integers.offset[g][r] = Isa::sum(offset);
      to_integers<kBits>(row[r], begin, end, g, r, integers);
    }
  }
  for (size_t lane = 0; lane < job.n_lanes; lane += kTileLanes) {
    Isa::Floats total[kRows];
    for (size_t r = 0; r < kRows; ++r) total[r] = Isa::zero_floats();
    for (size_t g = 0; g < n_groups; ++g) {
      const size_t last = std::min(job.n_chunks, (g + 1) * job.group / kChunkDepth);
      multiply_tile<kBits>(job.codes + lane / kTileLanes * tile_bytes, g * job.group / kChunkDepth, last, integers, g,
                           sums);
      const Isa::Floats scales = Isa::load_floats(job.scales + g * job.group_stride + lane);
      const Isa::Floats zeros = Isa::load_floats(job.zeros + g * job.group_stride + lane);
      MNEME_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        const Isa::Floats part = Isa::multiply_add(sums[r], Isa::set_floats(integers.scale[g][r]), Isa::zero_floats());
        total[r] = Isa::multiply_add(part, scales, total[r]);
        total[r] = Isa::multiply_add(Isa::set_floats(integers.offset[g][r]), zeros, total[r]);
      }
    }
    MNEME_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      add_to(y + r * job.y_stride + lane, std::min(kTileLanes, job.n_lanes - lane), total[r]);
    }
  }
}

template <size_t kBits>
void multiply_bits(const Job& job) {
  size_t r = 0;
  const auto in_steps_of = [&]<size_t kRows>() {
    if constexpr (kRows <= Isa::kCodedRows) {
      for (; job.n_rows - r >= kRows; r += kRows) {
        multiply_rows<kBits, kRows>(job, job.x + r * job.x_stride, job.y + r * job.y_stride);
      }
    }
  };
  in_steps_of.template operator()<4>();
  in_steps_of.template operator()<2>();
  in_steps_of.template operator()<1>();
}

inline void multiply(const Job& job) {
  switch (job.bits) {
    case 2: return multiply_bits<2>(job);
    case 3: return multiply_bits<3>(job);
    case 4: return multiply_bits<4>(job);
    default: return multiply_bits<8>(job);
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
