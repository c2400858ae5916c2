#include "kernels/coded_matrix.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/half.h"
#include "kernels/coded/job.h"
#include "kernels/cpu.h"
#include "kernels/vector_ops.h"

namespace mneme::kernels {
namespace {

using coded::kMaxDim;
using coded::kMaxScales;
using coded::kMaxSmallerDim;
using coded::kMiddleOf8Bits;
using coded::kTileLanes;
using coded::kVectorBytes;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr uint8_t kNanExponent = 255;

uint32_t nearest_code(CodedMatrix::Grid grid, float x, unsigned bits) {
  if (grid.scale == 0 || !std::isfinite(grid.zero)) return 0;
  const float middle = bits == 8 ? kMiddleOf8Bits : 0.0f;
  const float code = std::nearbyint((x - grid.zero) / grid.scale + middle);
  return static_cast<uint32_t>(std::clamp(code, 0.0f, static_cast<float>((1u << bits) - 1)));
}

float value_of(CodedMatrix::Grid grid, uint32_t code, unsigned bits) {
  return grid.scale * static_cast<float>(static_cast<int>(code) - (bits == 8 ? kMiddleOf8Bits : 0)) + grid.zero;
}

/// 2^(e - 127) for a stored exponent e in 1 .. 254; 0 for 0. Without a branch, for loops of vectors.
float power_of(uint8_t exponent) {
  const uint32_t quiet = exponent == kNanExponent ? 1u << 22 : 0;
  return std::bit_cast<float>(static_cast<uint32_t>(exponent) << 23 | quiet);
}

/// Codes 0 .. 2 L stand for -L .. L.
float exponent_zero(unsigned bits, float scale) {
  return bits == 8 ? scale : -scale * static_cast<float>((1u << (bits - 1)) - 1);
}

/// Byte and shift of a code. 3-bit codes have their low two bits there and the third in the chunk's last vector.
struct Place {
  size_t byte;
  unsigned shift;
  size_t high_byte;
  unsigned high_shift;
};

Place place_of(unsigned bits, size_t n_chunks, size_t lane, size_t i) {
  const coded::ChunkShape shape = coded::chunk_shape(bits);
  const size_t chunk = (lane / kTileLanes * n_chunks + i / shape.depth) * shape.vectors * kVectorBytes;
  const size_t quad = i % shape.depth / 4, in_vector = lane % kTileLanes * 4 + i % 4;
  if (bits == 3) {
    return {chunk + quad / 4 * kVectorBytes + in_vector, static_cast<unsigned>(2 * (quad % 4)),
            chunk + 2 * kVectorBytes + in_vector, static_cast<unsigned>(quad)};
  }
  return {chunk + in_vector, static_cast<unsigned>(bits * quad), 0, 0};
}

coded::MultiplyFn multiply_of_target() {
  switch (active_target()) {
#if defined(__x86_64__)
    case Target::kAvx512: return coded::avx512_multiply();
    case Target::kAvx2: return coded::avx2_multiply();
#endif
    default: return coded::portable_multiply();
  }
}

}  // namespace

CodedMatrix::CodedMatrix(const CodedFormat& format, size_t n_lanes, size_t depth)
    : format_(format), n_lanes_(n_lanes), depth_(depth) {
  const coded::ChunkShape chunk = coded::chunk_shape(format.bits);
  if (chunk.vectors == 0) {
    fail(ErrorCode::kInvalidArgument, "[coded matrix] expected 2, 3, 4 or 8 bits, found {}", format.bits);
  }
  if (format.group == 0 || format.group % 32 != 0) {
    fail(ErrorCode::kInvalidArgument, "[coded matrix] expected a group that is a multiple of 32, found {}", format.group);
  }
  if (n_lanes == 0 || depth == 0 || std::max(n_lanes, depth) > kMaxDim || std::min(n_lanes, depth) > kMaxSmallerDim) {
    fail(ErrorCode::kUnsupported, "[coded matrix] expected dimensions of at most {} x {}, found {} x {}", kMaxSmallerDim,
         kMaxDim, n_lanes, depth);
  }
  chunk_depth_ = chunk.depth;
  n_chunks_ = div_up(depth, chunk.depth);
  code_bytes_ = div_up(n_lanes, kTileLanes) * n_chunks_ * chunk.vectors * kVectorBytes;
  scale_bytes_ = n_groups() * group_width() * (format.scales == CodedFormat::Scales::kFloat16 ? 4 : 1);
}

size_t CodedMatrix::n_groups() const {
  return div_up<size_t>(format_.groups == CodedFormat::Groups::kAlongLanes ? n_lanes_ : depth_, format_.group);
}

void CodedMatrix::set_code(std::byte* out, size_t lane, size_t i, uint32_t code) const {
  const Place at = place_of(format_.bits, n_chunks_, lane, i);
  const auto put = [&](size_t byte, unsigned shift, uint32_t value, uint32_t mask) {
    const uint32_t old = std::to_integer<uint32_t>(out[byte]);
    out[byte] = static_cast<std::byte>((old & ~(mask << shift)) | value << shift);
  };
  if (format_.bits == 3) {
    put(at.byte, at.shift, code & 3, 3);
    put(at.high_byte, at.high_shift, code >> 2, 1);
  } else {
    put(at.byte, at.shift, code, (1u << format_.bits) - 1);
  }
}

uint32_t CodedMatrix::code(const std::byte* coded, size_t lane, size_t i) const {
  const Place at = place_of(format_.bits, n_chunks_, lane, i);
  const uint32_t low = std::to_integer<uint32_t>(coded[at.byte]) >> at.shift;
  if (format_.bits != 3) return low & ((1u << format_.bits) - 1);
  return (low & 3) | (std::to_integer<uint32_t>(coded[at.high_byte]) >> at.high_shift & 1) << 2;
}

size_t CodedMatrix::scale_offset(size_t group, size_t across) const {
  const size_t width = group_width();
  if (format_.scales == CodedFormat::Scales::kExponent) return code_bytes_ + group * width + across;
  return code_bytes_ + 2 * (2 * group * width + across);
}

CodedMatrix::Grid CodedMatrix::grid(const std::byte* coded, size_t group, size_t across) const {
  const std::byte* const at = coded + scale_offset(group, across);
  if (format_.scales == CodedFormat::Scales::kExponent) {
    const float scale = power_of(std::to_integer<uint8_t>(*at));
    return {scale, exponent_zero(format_.bits, scale)};
  }
  uint16_t scale = 0, zero = 0;
  std::memcpy(&scale, at, sizeof scale);
  std::memcpy(&zero, at + 2 * group_width(), sizeof zero);
  return {f16_to_f32(scale), f16_to_f32(zero)};
}

CodedMatrix::Grid CodedMatrix::fit_grid(float min, float max, std::byte* at) const {
  const unsigned bits = format_.bits;
  if (format_.scales == CodedFormat::Scales::kExponent) {
    const float largest = std::max(std::abs(min), std::abs(max));
    const float levels = static_cast<float>((1u << (bits - 1)) - 1);
    uint8_t exponent = 0;
    if (!std::isfinite(largest)) {
      exponent = kNanExponent;
    } else if (largest > 0) {
      // The least 2^e with round(largest / 2^e) <= levels; from the exponent of the quotient, then checked.
      int e = std::ilogb(largest / levels);
      while (std::nearbyint(std::ldexp(largest, -e)) > levels) ++e;
      exponent = static_cast<uint8_t>(std::clamp(e + 127, 1, 254));
    }
    *at = static_cast<std::byte>(exponent);
    const float scale = power_of(exponent);
    return {scale, exponent_zero(bits, scale)};
  }
  constexpr float kLargestF16 = 65504;
  const bool finite = std::isfinite(min) && std::isfinite(max);
  min = std::clamp(min, -kLargestF16, kLargestF16);
  max = std::clamp(max, -kLargestF16, kLargestF16);
  const float step = (max - min) / static_cast<float>((1u << bits) - 1);
  const uint16_t scale = f32_to_f16(finite ? step : kNan);
  const float rounded = f16_to_f32(scale);
  const uint16_t zero = f32_to_f16(finite ? min + (bits == 8 ? kMiddleOf8Bits * rounded : 0) : kNan);
  std::memcpy(at, &scale, sizeof scale);
  std::memcpy(at + 2 * group_width(), &zero, sizeof zero);
  return {rounded, f16_to_f32(zero)};
}

void CodedMatrix::encode(ConstValues values, const Part& part, std::byte* out) const {
  const bool along_lanes = format_.groups == CodedFormat::Groups::kAlongLanes;
  const size_t begin = along_lanes ? part.lane_begin : part.depth_begin;
  const size_t end = along_lanes ? part.lane_end : part.depth_end;
  const size_t across_begin = along_lanes ? part.depth_begin : part.lane_begin;
  const size_t across_end = along_lanes ? part.depth_end : part.lane_end;
  [[maybe_unused]] const size_t full = along_lanes ? n_lanes_ : depth_;
  assert(begin % format_.group == 0 && (end % format_.group == 0 || end == full));
  const size_t step = along_lanes ? values.lane_stride : values.depth_stride;
  const size_t across_step = along_lanes ? values.depth_stride : values.lane_stride;
  for (size_t across = across_begin; across < across_end; ++across) {
    for (size_t first = begin; first < end; first += format_.group) {
      const size_t last = std::min<size_t>(end, first + format_.group);
      const float* const x = values.data + (first - begin) * step + (across - across_begin) * across_step;
      float min = x[0], max = x[0];
      bool nan = false;
      for (size_t i = 0; i < last - first; ++i) {
        nan |= std::isnan(x[i * step]);
        min = std::min(min, x[i * step]);
        max = std::max(max, x[i * step]);
      }
      if (nan) min = max = kNan;
      const Grid grid = fit_grid(min, max, out + scale_offset(first / format_.group, across));
      for (size_t i = first; i < last; ++i) {
        const uint32_t code = nearest_code(grid, x[(i - first) * step], format_.bits);
        set_code(out, along_lanes ? i : across, along_lanes ? across : i, code);
      }
    }
  }
}

void CodedMatrix::decode(const std::byte* coded, const Part& part, Values values) const {
  const bool along_lanes = format_.groups == CodedFormat::Groups::kAlongLanes;
  for (size_t lane = part.lane_begin; lane < part.lane_end; ++lane) {
    for (size_t i = part.depth_begin; i < part.depth_end; ++i) {
      const size_t group = (along_lanes ? lane : i) / format_.group;
      const Grid at = grid(coded, group, along_lanes ? i : lane);
      values.data[(lane - part.lane_begin) * values.lane_stride + (i - part.depth_begin) * values.depth_stride] =
          value_of(at, code(coded, lane, i), format_.bits);
    }
  }
}

/// Each group's scales and then its zeros, both in whole vectors.
void CodedMatrix::load_grids(const std::byte* coded, float* grids) const {
  const size_t width = group_width(), stride = round_up<size_t>(width, kTileLanes);
  assert(n_groups() * stride <= kMaxScales);
  const std::byte* const at = coded + code_bytes_;
  const VectorOps& ops = vector_ops();
  if (format_.scales == CodedFormat::Scales::kExponent) {
    for (size_t g = 0; g < n_groups(); ++g) {
      float* const scale = grids + 2 * g * stride;
      for (size_t i = 0; i < width; ++i) scale[i] = power_of(std::to_integer<uint8_t>(at[g * width + i]));
      for (size_t i = 0; i < width; ++i) scale[stride + i] = exponent_zero(format_.bits, scale[i]);
    }
  } else if (stride == width) {
    ops.f16_to_f32(at, 2 * n_groups() * width, grids);
  } else {
    for (size_t part = 0; part < 2 * n_groups(); ++part) ops.f16_to_f32(at + 2 * part * width, width, grids + part * stride);
  }
  for (size_t part = 0; width < stride && part < 2 * n_groups(); ++part) {
    std::fill_n(grids + part * stride + width, stride - width, 0.0f);
  }
}

void CodedMatrix::multiply(std::span<const Product> products, size_t x_stride, size_t n_rows, size_t y_stride) const {
  constexpr size_t kAtOnce = 4;
  alignas(64) float grids[kAtOnce][2 * kMaxScales];
  coded::Operand operands[kAtOnce];
  const size_t stride = round_up<size_t>(group_width(), kTileLanes);
  for (size_t first = 0, n; first < products.size(); first += n) {
    n = std::min(kAtOnce, products.size() - first);
    for (size_t i = 0; i < n; ++i) {
      const Product& product = products[first + i];
      load_grids(product.coded, grids[i]);
      operands[i] = {reinterpret_cast<const uint8_t*>(product.coded), grids[i], grids[i] + stride, product.x, product.y,
                     reinterpret_cast<const uint8_t*>(product.ahead)};
    }
    multiply_of_target()({format_.bits, format_.groups == CodedFormat::Groups::kAlongLanes, n_lanes_, depth_,
                          format_.group, n_chunks_, 2 * stride, operands, n, bytes(), x_stride, n_rows, y_stride});
  }
}

}  // namespace mneme::kernels
