// Products of coded matrices for one target; included by the file of each target behind its Isa.
#pragma once

#include <algorithm>

#include "kernels/coded/chunks-inl.h"
#include "kernels/coded/digits-inl.h"
#include "kernels/coded/job.h"
#include "kernels/prefetch.h"
#include "kernels/products/target.h"

namespace mneme::kernels::products::MNEME_TARGET {

using coded::Job;
using coded::kTileLanes;

/// Adds the products of a quad of each lane's codes with the digits of the rows at `offset`.
template <size_t kBits, size_t kRows>
MNEME_INLINE void add_quad(Isa::Bytes codes, const IntegerRows<kRows>& x, size_t offset, Isa::Ints (&high)[kRows],
                           Isa::Ints (&low)[kRows]) {
  MNEME_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    high[r] = Isa::dot_once<kBits == 8>(high[r], codes, &x.high[r][offset]);
    low[r] = Isa::dot_once<kBits == 8>(low[r], codes, &x.low[r][offset]);
  }
}

/// Sums of code * v over the chunks [first, last) of one tile of lanes; `first` begins a half block.
template <size_t kBits, size_t kRows>
MNEME_INLINE void multiply_tile(const uint8_t* codes, size_t first, size_t last, const IntegerRows<kRows>& x, size_t g,
                                Isa::Floats (&sums)[kRows]) {
  using Codes = Chunk<kBits>;
  constexpr size_t kBytes = coded::chunk_shape(kBits).vectors * coded::kVectorBytes;
  constexpr size_t kChunks = kHalfBlock / coded::chunk_shape(kBits).depth;
  Isa::Ints high[kRows], low[kRows];
  MNEME_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    high[r] = Isa::set_ints(x.start_high[g][r]);
    low[r] = Isa::set_ints(x.start_low[g][r]);
  }
  size_t chunk = first;
  for (; chunk + kChunks <= last; chunk += kChunks) {
    const size_t at = half_offset(chunk / kChunks);
    MNEME_UNROLL
    for (size_t i = 0; i < kChunks; ++i) {
      Isa::Bytes quads[Codes::kQuads];
      Codes::unpack(codes + (chunk + i) * kBytes, quads);
      MNEME_UNROLL
      for (size_t q = 0; q < Codes::kQuads; ++q) {
        add_quad<kBits>(quads[q], x, at + quad_offset(i * Codes::kQuads + q), high, low);
      }
    }
  }
  for (; chunk < last; ++chunk) {
    const size_t at = half_offset(chunk / kChunks);
    Isa::Bytes quads[Codes::kQuads];
    Codes::unpack(codes + chunk * kBytes, quads);
    for (size_t q = 0; q < Codes::kQuads; ++q) {
      add_quad<kBits>(quads[q], x, at + quad_offset(chunk % kChunks * Codes::kQuads + q), high, low);
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

/// Asks for an operand's memory ahead piece by piece, one for each tile of lanes of the first rows: a burst would stall the
/// loads behind it.
class Ahead {
 public:
  Ahead(const Job& job, const coded::Operand& operand, size_t row)
      : at_(reinterpret_cast<const std::byte*>(operand.ahead)),
        piece_((job.ahead_bytes * kTileLanes / job.n_lanes + 63) / 64 * 64),
        rest_(at_ == nullptr || row > 0 ? 0 : job.ahead_bytes) {}

  MNEME_INLINE void ask() {
    const size_t bytes = std::min(piece_, rest_);
    prefetch_bytes(at_, bytes);
    at_ += bytes;
    rest_ -= bytes;
  }

 private:
  const std::byte* at_;
  size_t piece_, rest_;
};

template <size_t kBits>
constexpr size_t tile_bytes(const Job& job) {
  return job.n_chunks * coded::chunk_shape(kBits).vectors * coded::kVectorBytes;
}

template <size_t kRows>
MNEME_INLINE void start_sums(Isa::Floats (&offsets)[kRows], Isa::Ints (&largest)[kRows]) {
  MNEME_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    offsets[r] = Isa::zero_floats();
    largest[r] = Isa::set_ints(0);
  }
}

/// Largest magnitudes and offsets of one group along the lanes, which becomes group `slot` of `integers`.
template <size_t kRows>
MNEME_INLINE void scale_group(const float* const (&x)[kRows], const float* scales, const float* zeros, size_t vectors,
                              size_t slot, IntegerRows<kRows>& integers) {
  Isa::Floats offsets[kRows];
  Isa::Ints largest[kRows];
  start_sums(offsets, largest);
  for (size_t i = 0; i < 16 * vectors; i += 16) {
    const Isa::Floats scale = Isa::load_floats(scales + i), zero = Isa::load_floats(zeros + i);
    MNEME_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      const Isa::Floats v = Isa::load_floats(x[r] + i);
      largest[r] = Isa::larger_bits(largest[r], Isa::multiply(v, scale));
      offsets[r] = Isa::multiply_add(v, zero, offsets[r]);
    }
  }
  Isa::sum_rows(offsets, integers.offset[slot]);
  integers.set_scales(slot, largest);
}

/// Digits of x times the scales of one group along the lanes.
template <size_t kRows>
MNEME_INLINE void set_scaled_digits(const float* const (&x)[kRows], const float* scales, size_t vectors, size_t padded,
                                    size_t slot, IntegerRows<kRows>& integers) {
  for (size_t i = 0; i < padded; i += kDigitBlock) {
    Isa::Floats scale[4];
    MNEME_UNROLL
    for (size_t k = 0; k < 4; ++k) {
      scale[k] = i + 16 * k < 16 * vectors ? Isa::load_floats(scales + i + 16 * k) : Isa::zero_floats();
    }
    MNEME_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      Isa::Floats v[4];
      MNEME_UNROLL
      for (size_t k = 0; k < 4; ++k) v[k] = Isa::multiply(Isa::load_floats(x[r] + i + 16 * k), scale[k]);
      integers.set_digits(r, i, v, integers.inverse[slot][r], integers.inverse[slot][r]);
    }
  }
}

/// Rows of x of an operand from `first` on, in whole blocks with zeros behind the depth; `copies` are for those that are not.
template <size_t kRows>
MNEME_INLINE void point_to_rows(const Job& job, const float* x, float (&copies)[kRows][kPaddedDepth],
                                const float* (&rows)[kRows]) {
  for (size_t r = 0; r < kRows; ++r) {
    rows[r] = x + r * job.x_stride;
    if (job.depth % kDigitBlock == 0) continue;
    std::copy_n(rows[r], job.depth, copies[r]);
    std::fill(copies[r] + job.depth, copies[r] + (job.depth / kDigitBlock + 1) * kDigitBlock, 0.0f);
    rows[r] = copies[r];
  }
}

/// Groups along the lanes: x times a group's scales becomes integers. The scales of all operands' groups are made first, so
/// that one's reductions pass while others are at work. Rows [row, row + kRows) of n operands, 1 where rows are copied.
template <size_t kBits, size_t kRows>
void multiply_scaled(const Job& job, const coded::Operand* operands, size_t n, size_t row) {
  const size_t vectors = (job.depth + 15) / 16, padded = (job.depth + kDigitBlock - 1) / kDigitBlock * kDigitBlock;
  alignas(64) float copies[kRows][kPaddedDepth];
  const float* x[kRows];
  IntegerRows<kRows> integers;
  const size_t n_lanes = job.n_lanes, group = job.group, group_stride = job.group_stride, y_stride = job.y_stride;
  size_t slot = 0;
  for (size_t o = 0; o < n; ++o) {
    point_to_rows(job, operands[o].x + row * job.x_stride, copies, x);
    const float *scales = operands[o].scales, *zeros = operands[o].zeros;
    for (size_t begin = 0; begin < n_lanes; begin += group, ++slot) {
      scale_group(x, scales, zeros, vectors, slot, integers);
      scales += group_stride;
      zeros += group_stride;
    }
  }
  slot = 0;
  for (size_t o = 0; o < n; ++o) {
    if (n > 1) point_to_rows(job, operands[o].x + row * job.x_stride, copies, x);
    const float* scales = operands[o].scales;
    float* const y = operands[o].y + row * y_stride;
    Ahead ahead(job, operands[o], row);
    for (size_t begin = 0; begin < n_lanes; begin += group, ++slot, scales += group_stride) {
      set_scaled_digits(x, scales, vectors, padded, slot, integers);
      integers.template set_starts<kBits>(slot, 0, padded / kHalfBlock);
      const size_t end = std::min(n_lanes, begin + group);
      for (size_t lane = begin; lane < end; lane += kTileLanes) {
        Isa::Floats sums[kRows];
        ahead.ask();
        multiply_tile<kBits>(operands[o].codes + lane / kTileLanes * tile_bytes<kBits>(job), 0, job.n_chunks, integers,
                             slot, sums);
        MNEME_UNROLL
        for (size_t r = 0; r < kRows; ++r) {
          add_to(y + r * y_stride + lane, std::min(kTileLanes, end - lane),
                 Isa::multiply_add(sums[r], Isa::set_floats(integers.scale[slot][r]),
                                   Isa::set_floats(integers.offset[slot][r])));
        }
      }
    }
  }
}

/// Groups along the depth: x itself becomes integers.
template <size_t kBits, size_t kRows>
MNEME_INLINE void make_plain_digits(const Job& job, const float* const (&x)[kRows], IntegerRows<kRows>& integers) {
  const size_t padded = (job.depth + kDigitBlock - 1) / kDigitBlock * kDigitBlock;
  const size_t n_groups = (job.depth + job.group - 1) / job.group;
  for (size_t g = 0; g < n_groups; ++g) {
    const size_t begin = g * job.group, end = std::min(job.depth, begin + job.group);
    Isa::Floats offsets[kRows];
    Isa::Ints largest[kRows];
    start_sums(offsets, largest);
    for (size_t i = begin; i < end; i += 16) {
      MNEME_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        const Isa::Floats v = Isa::load_floats(x[r] + i);
        largest[r] = Isa::larger_bits(largest[r], v);
        offsets[r] = Isa::add(offsets[r], v);
      }
    }
    Isa::sum_rows(offsets, integers.offset[g]);
    integers.set_scales(g, largest);
  }
  for (size_t i = 0; i < padded; i += kDigitBlock) {
    const size_t g = i / job.group, next = std::min(n_groups - 1, (i + kHalfBlock) / job.group);
    MNEME_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      Isa::Floats v[4];
      MNEME_UNROLL
      for (size_t k = 0; k < 4; ++k) v[k] = Isa::load_floats(x[r] + i + 16 * k);
      integers.set_digits(r, i, v, integers.inverse[g][r], integers.inverse[next][r]);
    }
  }
  for (size_t g = 0; g < n_groups; ++g) {
    const size_t end = std::min(job.depth, (g + 1) * job.group);
    integers.template set_starts<kBits>(g, g * job.group / kHalfBlock, (end + kHalfBlock - 1) / kHalfBlock);
  }
}

/// Groups along the depth, digits made: the sums are scaled.
template <size_t kBits, size_t kRows>
MNEME_INLINE void multiply_plain(const Job& job, const coded::Operand& operand, const IntegerRows<kRows>& integers,
                                 size_t row) {
  float* const y = operand.y + row * job.y_stride;
  Ahead ahead(job, operand, row);
  constexpr size_t kChunkDepth = coded::chunk_shape(kBits).depth;
  const size_t n_groups = (job.depth + job.group - 1) / job.group;
  for (size_t lane = 0; lane < job.n_lanes; lane += kTileLanes) {
    Isa::Floats total[kRows];
    for (size_t r = 0; r < kRows; ++r) total[r] = Isa::zero_floats();
    ahead.ask();
    for (size_t g = 0; g < n_groups; ++g) {
      Isa::Floats sums[kRows];
      const size_t last = std::min(job.n_chunks, (g + 1) * job.group / kChunkDepth);
      multiply_tile<kBits>(operand.codes + lane / kTileLanes * tile_bytes<kBits>(job), g * job.group / kChunkDepth, last,
                           integers, g, sums);
      const Isa::Floats scales = Isa::load_floats(operand.scales + g * job.group_stride + lane);
      const Isa::Floats zeros = Isa::load_floats(operand.zeros + g * job.group_stride + lane);
      MNEME_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        const Isa::Floats part = Isa::multiply(sums[r], Isa::set_floats(integers.scale[g][r]));
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

/// Rows [row, row + kRows) of all operands.
template <size_t kBits, size_t kRows>
void multiply_rows(const Job& job, size_t row) {
  if (job.along_lanes) {
    const size_t n_groups = (job.n_lanes + job.group - 1) / job.group;
    size_t at_once = 1;
    while (job.depth % kDigitBlock == 0 && (at_once + 1) * n_groups <= kMaxGroups) ++at_once;
    for (size_t o = 0; o < job.n_operands; o += at_once) {
      multiply_scaled<kBits, kRows>(job, job.operands + o, std::min(at_once, job.n_operands - o), row);
    }
    return;
  }
  alignas(64) float copies[kRows][kPaddedDepth];
  IntegerRows<kRows> integers;
  for (size_t o = 0; o < job.n_operands; ++o) {
    const coded::Operand& operand = job.operands[o];
    if (o == 0 || operand.x != job.operands[o - 1].x) {
      const float* x[kRows];
      point_to_rows(job, operand.x + row * job.x_stride, copies, x);
      make_plain_digits<kBits>(job, x, integers);
    }
    multiply_plain<kBits>(job, operand, integers, row);
  }
}

template <size_t kBits>
void multiply_bits(const Job& job) {
  size_t r = 0;
  const auto in_steps_of = [&]<size_t kRows>() {
    if constexpr (kRows <= Isa::kCodedRows) {
      for (; job.n_rows - r >= kRows; r += kRows) {
        multiply_rows<kBits, kRows>(job, r);
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
