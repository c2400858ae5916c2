#pragma once

#include <array>

#include "kernels/products/format.h"
#include "tensor/dtype.h"

/// One description a type that multiplies with 8-bit activations. Block layouts: the GGUF documents of ggml.
namespace mneme::kernels::products {

/// Defaults that most types share.
struct FormatBase {
  static constexpr size_t kGroup = kBlockColumns;     ///< Columns that share a scale: 16 or 32.
  static constexpr bool kMinimum = false;             ///< Has a minimum per group.
  static constexpr const uint8_t* kLevels = nullptr;  ///< Level of each of the 16 codes; null: the code itself.
  static constexpr int kSpecialCode = -1;             ///< Code whose level is chosen per row and block; -1: none.
  static constexpr bool kDoubled = false;             ///< Levels are twice the codes.
};

/// Values of the non-linear 4-bit types, shifted by 128.
inline constexpr std::array<uint8_t, 16> kIq4Levels = {1,   24,  45,  63,  79,  93,  106, 118,
                                                       129, 141, 153, 166, 181, 197, 217, 241};
/// Doubled values of a 4-bit float (E2M1), shifted by 16.
inline constexpr std::array<uint8_t, 16> kFp4Levels = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

/// Base levels of BitMoD by code, shifted by 16; the code of minus zero has the special level of its block.
inline constexpr std::array<uint8_t, 16> kBitMod4Levels = {16, 17, 18, 19, 20, 22, 24, 28,
                                                           16, 15, 14, 13, 12, 10, 8,  4};
inline constexpr std::array<uint8_t, 16> kBitMod3Levels = {16, 17, 18, 20, 16, 15, 14, 12, 0, 0, 0, 0, 0, 0, 0, 0};

struct Q4_0 : FormatBase {
  static constexpr DType kDType = DType::kQ4_0;
  static constexpr size_t kBlock = 32, kBytes = 18;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 8;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

struct Q4_1 : FormatBase {
  static constexpr DType kDType = DType::kQ4_1;
  static constexpr size_t kBlock = 32, kBytes = 20;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 0;
  static constexpr bool kMinimum = true;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 2}}};
};

struct Q5_0 : FormatBase {
  static constexpr DType kDType = DType::kQ5_0;
  static constexpr size_t kBlock = 32, kBytes = 22;
  static constexpr Planes kPlanes = Planes::kNibbleOne;
  static constexpr int kZero = 16;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

struct Q5_1 : FormatBase {
  static constexpr DType kDType = DType::kQ5_1;
  static constexpr size_t kBlock = 32, kBytes = 24;
  static constexpr Planes kPlanes = Planes::kNibbleOne;
  static constexpr int kZero = 0;
  static constexpr bool kMinimum = true;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 2}}};
};

struct Q8_0 : FormatBase {
  static constexpr DType kDType = DType::kQ8_0;
  static constexpr size_t kBlock = 32, kBytes = 34;
  static constexpr Planes kPlanes = Planes::kByte;
  static constexpr int kZero = 128;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

struct Iq4Nl : FormatBase {
  static constexpr DType kDType = DType::kIQ4_NL;
  static constexpr size_t kBlock = 32, kBytes = 18;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 128;
  static constexpr const uint8_t* kLevels = kIq4Levels.data();
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

struct Mxfp4 : FormatBase {
  static constexpr DType kDType = DType::kMXFP4;
  static constexpr size_t kBlock = 32, kBytes = 17;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 16;
  static constexpr const uint8_t* kLevels = kFp4Levels.data();
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 1, 1}}};
};

struct Nvfp4 : FormatBase {
  static constexpr DType kDType = DType::kNVFP4;
  static constexpr size_t kBlock = 64, kBytes = 36;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 16;
  static constexpr size_t kGroup = 16;
  static constexpr const uint8_t* kLevels = kFp4Levels.data();
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 1, 4}}};
};

struct Q2_K : FormatBase {
  static constexpr DType kDType = DType::kQ2_K;
  static constexpr size_t kBlock = 256, kBytes = 84;
  static constexpr Planes kPlanes = Planes::kTwo;
  static constexpr int kZero = 0;
  static constexpr size_t kGroup = 16;
  static constexpr bool kMinimum = true;
  static constexpr std::array<HeaderRun, 2> kHeader = {{{0, 1, 16}, {80, 2, 2}}};
};

struct Q3_K : FormatBase {
  static constexpr DType kDType = DType::kQ3_K;
  static constexpr size_t kBlock = 256, kBytes = 110;
  static constexpr Planes kPlanes = Planes::kTwoOne;
  static constexpr int kZero = 4;
  static constexpr size_t kGroup = 16;
  static constexpr std::array<HeaderRun, 2> kHeader = {{{96, 1, 12}, {108, 2, 1}}};
};

struct Q4_K : FormatBase {
  static constexpr DType kDType = DType::kQ4_K;
  static constexpr size_t kBlock = 256, kBytes = 144;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 0;
  static constexpr bool kMinimum = true;
  static constexpr std::array<HeaderRun, 2> kHeader = {{{0, 2, 2}, {4, 1, 12}}};
};

struct Q5_K : FormatBase {
  static constexpr DType kDType = DType::kQ5_K;
  static constexpr size_t kBlock = 256, kBytes = 176;
  static constexpr Planes kPlanes = Planes::kNibbleOne;
  static constexpr int kZero = 0;
  static constexpr bool kMinimum = true;
  static constexpr std::array<HeaderRun, 2> kHeader = {{{0, 2, 2}, {4, 1, 12}}};
};

struct Q6_K : FormatBase {
  static constexpr DType kDType = DType::kQ6_K;
  static constexpr size_t kBlock = 256, kBytes = 210;
  static constexpr Planes kPlanes = Planes::kNibbleTwo;
  static constexpr int kZero = 32;
  static constexpr size_t kGroup = 16;
  static constexpr std::array<HeaderRun, 2> kHeader = {{{192, 1, 16}, {208, 2, 1}}};
};

struct Iq4Xs : FormatBase {
  static constexpr DType kDType = DType::kIQ4_XS;
  static constexpr size_t kBlock = 256, kBytes = 136;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 128;
  static constexpr const uint8_t* kLevels = kIq4Levels.data();
  static constexpr std::array<HeaderRun, 2> kHeader = {{{0, 2, 2}, {4, 1, 4}}};
};

/// Levels of base-3 digits, as TritCode gives them.
inline constexpr std::array<uint8_t, 16> kTritLevels = {64, 128, 192};

/// Five base-3 digits a byte.
struct Tq1_0 : FormatBase {
  static constexpr DType kDType = DType::kTQ1_0;
  static constexpr size_t kBlock = 256, kBytes = 54;
  static constexpr Planes kPlanes = Planes::kTrits;
  static constexpr int kZero = 128;
  static constexpr const uint8_t* kLevels = kTritLevels.data();
  static constexpr std::array<HeaderRun, 1> kHeader = {{{52, 2, 1}}};
};

struct Tq2_0 : FormatBase {
  static constexpr DType kDType = DType::kTQ2_0;
  static constexpr size_t kBlock = 256, kBytes = 66;
  static constexpr Planes kPlanes = Planes::kTwo;
  static constexpr int kZero = 1;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{64, 2, 1}}};
};

/// Ternary as TQ2_0, in blocks of 64.
struct Q2_0 : FormatBase {
  static constexpr DType kDType = DType::kQ2_0;
  static constexpr size_t kBlock = 64, kBytes = 18;
  static constexpr Planes kPlanes = Planes::kTwo;
  static constexpr int kZero = 1;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

/// Signs: bit b is level 2b less a zero of 1.
struct Q1_0 : FormatBase {
  static constexpr DType kDType = DType::kQ1_0;
  static constexpr size_t kBlock = 128, kBytes = 18;
  static constexpr bool kDoubled = true;
  static constexpr Planes kPlanes = Planes::kOne;
  static constexpr int kZero = 1;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

/// Blocks as tensor/bitmod.h describes them.
struct BitMod4 : FormatBase {
  static constexpr DType kDType = DType::kBitMod4;
  static constexpr size_t kBlock = 128, kBytes = 66;
  static constexpr Planes kPlanes = Planes::kNibble;
  static constexpr int kZero = 16, kSpecialCode = 8;
  static constexpr int kResolution = 10, kAsymmetry = 16;  ///< Magnitudes of the special level.
  static constexpr const uint8_t* kLevels = kBitMod4Levels.data();
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

struct BitMod3 : FormatBase {
  static constexpr DType kDType = DType::kBitMod3;
  static constexpr size_t kBlock = 128, kBytes = 50;
  static constexpr Planes kPlanes = Planes::kTwoOne;
  static constexpr int kZero = 16, kSpecialCode = 4;
  static constexpr int kResolution = 3, kAsymmetry = 6;
  static constexpr const uint8_t* kLevels = kBitMod3Levels.data();
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

/// Blocks as tensor/bipolar.h describes them. The odd number 2u - (2^n - 1) is level 2u less a zero; the levels of 8
/// bits would not fit a byte, so there it is 2 (u - 128) + 1 with the one as a minimum.
template <int kBits>
struct Bipolar : FormatBase {
  static constexpr DType kDType = static_cast<DType>(static_cast<uint32_t>(DType::kBipolar1) + kBits - 1);
  static constexpr size_t kBlock = 128, kBytes = 2 + 16 * kBits;
  static constexpr Planes kPlanes =
      std::array{Planes::kOne,       Planes::kTwo,       Planes::kTwoOne,       Planes::kNibble,
                 Planes::kNibbleOne, Planes::kNibbleTwo, Planes::kNibbleTwoOne, Planes::kByte}[kBits - 1];
  static constexpr bool kDoubled = kBits < 8, kMinimum = kBits == 8;
  static constexpr int kZero = kBits < 8 ? (1 << kBits) - 1 : 128;
  static constexpr std::array<HeaderRun, 1> kHeader = {{{0, 2, 1}}};
};

/// The signs of a BitStack block (tensor/bitstack.h): bit b is level 2b less a zero of 1. Only packed; scales of one.
struct Signs : FormatBase {
  static constexpr size_t kBlock = 32, kBytes = 4;
  static constexpr Planes kPlanes = Planes::kOne;
  static constexpr bool kDoubled = true;
  static constexpr int kZero = 1;
  static constexpr std::array<HeaderRun, 0> kHeader = {};
};

/// All of them but Signs, for building tables.
#define MNEME_INT8_FORMATS(X)                                                                                   \
  X(Q4_0)                                                                                                       \
  X(Q4_1)                                                                                                       \
  X(Q5_0)                                                                                                       \
  X(Q5_1)                                                                                                       \
  X(Q8_0) X(Iq4Nl) X(Mxfp4) X(Nvfp4) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(Iq4Xs) X(Tq1_0) X(Tq2_0) X(Q2_0) \
      X(Q1_0) X(BitMod3) X(BitMod4) X(Bipolar<1>) X(Bipolar<2>) X(Bipolar<3>) X(Bipolar<4>) X(Bipolar<5>)       \
          X(Bipolar<6>) X(Bipolar<7>) X(Bipolar<8>)

/// Bytes of the header of one block and one row.
template <class Format>
constexpr size_t header_bytes() {
  size_t bytes = 0;
  for (const HeaderRun& run : Format::kHeader) bytes += static_cast<size_t>(run.width) * run.count;
  return bytes;
}

/// Bytes of a packed tile of `columns` columns of one stripe: headers of all blocks ([block][field][row]), then the
/// planes of each block of 32 columns (or as many as lie together).
template <class Format>
constexpr size_t packed_tile_bytes(size_t columns) {
  return columns / Format::kBlock * header_bytes<Format>() * kStripeRows +
         columns / plane_columns(Format::kPlanes) * plane_vectors(Format::kPlanes) * kVectorBytes;
}

/// Bytes of the packed tiles of one stripe.
template <class Format>
constexpr size_t packed_stripe_bytes(size_t columns) {
  return columns / kTileColumns * packed_tile_bytes<Format>(kTileColumns) +
         packed_tile_bytes<Format>(columns % kTileColumns);
}

/// Where a tile of one stripe lies in a packed matrix, bytes from its start. Stripes 2i and 2i + 1 share a run of
/// memory, so that a kernel that works on both reads one stream: tile by tile the headers of both, then the planes of
/// both block by block. An odd last stripe is alone.
struct PackedTile {
  size_t header;
  size_t planes;        ///< Of the first block.
  size_t block_stride;  ///< From the planes of a block to those of the next.
};

/// The tile of `stripe` (of n_stripes) that begins at column `first` (a multiple of 256) of `columns`.
template <class Format>
constexpr PackedTile packed_tile(size_t stripe, size_t n_stripes, size_t first, size_t columns) {
  constexpr size_t kPlaneBytes = plane_vectors(Format::kPlanes) * kVectorBytes;
  const size_t n = columns - first < kTileColumns ? columns - first : kTileColumns;
  const size_t in_pair = stripe % 2, pair = stripe - in_pair, width = pair + 1 < n_stripes ? 2 : 1;
  const size_t header = n / Format::kBlock * header_bytes<Format>() * kStripeRows;
  const size_t begin = pair * packed_stripe_bytes<Format>(columns) +
                       width * (first / kTileColumns) * packed_tile_bytes<Format>(kTileColumns);
  return {begin + in_pair * header, begin + width * header + in_pair * kPlaneBytes, width * kPlaneBytes};
}

}  // namespace mneme::kernels::products
