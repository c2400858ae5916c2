#pragma once

#include <cstddef>
#include <cstdint>

namespace mneme::kernels::coded {

/// Largest number of lanes and largest depth of a matrix: the scratch of a product lies on the stack.
inline constexpr size_t kMaxDim = 576;
inline constexpr size_t kMaxSmallerDim = 64;  ///< Of lanes and depth, the smaller.
/// Most scales of a matrix: 18 groups of 64, or 2 of 576.
inline constexpr size_t kMaxScales = kMaxDim / 32 * kMaxSmallerDim;
inline constexpr size_t kTileLanes = 16;
inline constexpr size_t kVectorBytes = 64;
/// Code that stands for the zero of 8-bit groups; the products of signed and unsigned bytes want it in the middle.
inline constexpr int kMiddleOf8Bits = 128;

/// One product of a job: y[r, lane] += sum over i of C[lane, i] x[r, i], scales and zeros given as floats.
struct Operand {
  const uint8_t* codes;
  const float* scales;           ///< [group][group_stride], zero behind the last of a group's.
  const float* zeros;
  const float* x;
  float* y;
  const uint8_t* ahead;          ///< Job::ahead_bytes to ask for while the product is at work, or null.
};

/// One call of a target's kernel: products of matrices of one format and shape, one after the other.
struct Job {
  uint8_t bits;
  bool along_lanes;              ///< Where the groups lie.
  size_t n_lanes, depth, group;
  size_t n_chunks;               ///< Of one tile of lanes.
  size_t group_stride;           ///< A multiple of 16.
  const Operand* operands;
  size_t n_operands;
  size_t ahead_bytes;
  size_t x_stride, n_rows, y_stride;
};

using MultiplyFn = void (*)(const Job&);

MultiplyFn portable_multiply();
#if defined(__x86_64__)
MultiplyFn avx2_multiply();
MultiplyFn avx512_multiply();
#endif

/// How the codes of a chunk lie in memory: vectors of each tile, and depths that they cover.
struct ChunkShape {
  size_t vectors, depth;
};

/// 2 bits: 4 depths a byte; 4 bits: 2; 8 bits: 1. 3 bits are a plane of 2 bits over 8 x 4 depths and then one of 1 bit.
constexpr ChunkShape chunk_shape(unsigned bits) {
  switch (bits) {
    case 2: return {1, 16};
    case 3: return {3, 32};
    case 4: return {1, 8};
    case 8: return {1, 4};
    default: return {0, 0};
  }
}

}  // namespace mneme::kernels::coded
