#pragma once

#include <algorithm>
#include <utility>

#include "kernels/products/bitstack_tile-inl.h"
#include "kernels/products/lossless-inl.h"
#include "kernels/products/operands-inl.h"
#include "tensor/aqlm_tile-inl.h"
#include "tensor/dfloat_tile-inl.h"

// Loops over stripes, tiles and groups of tokens, and the table of what this target runs. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

/// Splits n tokens into the fewest groups of at most kMost, sizes as equal as can be, and calls run(first, count).
template <size_t kMost, class Run>
MNEME_INLINE void for_token_groups(size_t n, Run run) {
  const size_t groups = (n + kMost - 1) / kMost;
  for (size_t i = 0; i < groups; ++i) run(n * i / groups, n * (i + 1) / groups - n * i / groups);
}

/// y = sums + bias for the valid rows of `n_stripes` stripes.
inline void write_rows(const StripeJob& job, size_t stripe, size_t n_stripes) {
  const size_t first = stripe * kStripeRows;
  const size_t n_rows = std::min(n_stripes * kStripeRows, job.matrix->rows - first);
  for (size_t t = 0; t < job.n_tokens; ++t) {
    const float* sums = job.sums + t * n_stripes * kStripeRows;
    float* y = job.y + t * job.y_stride + first;
    if (job.bias != nullptr) {
      for (size_t r = 0; r < n_rows; ++r) y[r] = sums[r] + job.bias[first + r];
    } else {
      std::memcpy(y, sums, n_rows * sizeof(float));
    }
  }
}

inline Int8Inputs int8_inputs(const StripeJob& job, size_t tile, size_t token, size_t groups) {
  const size_t row = tile * job.n_tokens + token;
  // Products that need no anchors, starts or sums come without them.
  const auto at = [](const auto* first, size_t n) { return first == nullptr ? first : first + n; };
  return {job.int8.levels + row * kTileColumns, at(job.int8.anchor, row * kTileBlocks),
          at(job.int8.start, row * groups), at(job.int8.sum, row * groups)};
}

// Tables of micro-kernels by number of tokens.
template <size_t kGroup, bool kMinimum, bool kWide, size_t kStripes, size_t... kTokens>
constexpr auto int8_micros(std::index_sequence<kTokens...>) {
  return std::array{&int8_micro<kGroup, kMinimum, kWide, kTokens + 1, kStripes>...};
}
template <bool kHalf, size_t kStripes, size_t... kTokens>
constexpr auto f32_micros(std::index_sequence<kTokens...>) {
  return std::array{&f32_micro<kHalf, kTokens + 1, kStripes>...};
}
template <size_t kStripes, size_t... kTokens>
constexpr auto bf16_micros(std::index_sequence<kTokens...>) {
  return std::array{&bf16_micro<kTokens + 1, kStripes>...};
}

/// Levels above 63 overflow the 16-bit sums of targets without VNNI.
template <class Format>
constexpr bool is_wide() {
  return Format::kZero > 63;
}

template <class Format, Layout kLayout>
struct Int8Product {
  static constexpr size_t kGroups = kTileColumns / Format::kGroup;

  /// Adds the products of kStripes stripes from `stripe` on to job.sums.
  template <size_t kStripes>
  static void sum(const StripeJob& job, size_t stripe) {
    static constexpr auto kMicros = int8_micros<Format::kGroup, Format::kMinimum, is_wide<Format>(), kStripes>(
        std::make_index_sequence<Isa::kInt8Tokens>());
    const Matrix& matrix = *job.matrix;
    const auto* bytes = reinterpret_cast<const uint8_t*>(matrix.data);
    const size_t row_bytes = matrix.columns / Format::kBlock * Format::kBytes;
    const size_t n_stripes = (matrix.rows + kStripeRows - 1) / kStripeRows;
    for (size_t tile = 0; tile * kTileColumns < matrix.columns; ++tile) {
      const size_t columns = std::min(kTileColumns, matrix.columns - tile * kTileColumns);
      const size_t n_blocks = columns / kBlockColumns;
      PackedTile at[kStripes];
      if constexpr (kLayout == Layout::kPacked) {
        for (size_t s = 0; s < kStripes; ++s) {
          at[s] = packed_tile<Format>(stripe + s, n_stripes, tile * kTileColumns, matrix.columns);
        }
        if (job.n_tokens == 1) {
          int8_decode<Format, is_wide<Format>(), kStripes>(bytes, at, int8_inputs(job, tile, 0, kGroups), n_blocks,
                                                           job.sums);
          continue;
        }
      }
      Int8Tile operands[kStripes];
      Int8Weights weights[kStripes];
      for (size_t s = 0; s < kStripes; ++s) {
        if constexpr (kLayout == Layout::kPacked) {
          packed_int8<Format>(bytes, at[s], columns, operands[s]);
        } else {
          const size_t offset = tile * (kTileColumns / Format::kBlock * Format::kBytes);
          plain_int8<Format>(PlainRows(matrix, stripe + s, row_bytes, offset), columns, operands[s]);
        }
        weights[s] = {operands[s].levels[0], operands[s].scales.scale[0], operands[s].scales.minimum[0]};
      }
      for_token_groups<Isa::kInt8Tokens>(job.n_tokens, [&](size_t first, size_t count) {
        kMicros[count - 1](weights, int8_inputs(job, tile, first, kGroups), n_blocks,
                           job.sums + first * kStripes * kStripeRows);
      });
    }
  }
};

/// f32 products: F32 and F16 in both layouts, and plain matrices of every other type that decodes.
template <DType kDType, Layout kLayout>
struct F32Product {
  static constexpr bool kHalf = kDType == DType::kF16;

  template <size_t kStripes>
  static void sum(const StripeJob& job, size_t stripe) {
    static constexpr auto kMicros = f32_micros<false, kStripes>(std::make_index_sequence<Isa::kFloatTokens>());
    static constexpr auto kHalfMicros = f32_micros<true, kStripes>(std::make_index_sequence<Isa::kFloatTokens>());
    const Matrix& matrix = *job.matrix;
    const DTypeInfo& info = dtype_info(matrix.dtype);
    for (size_t k = 0; k < matrix.columns; k += kTileColumns) {
      const size_t columns = std::min(kTileColumns, matrix.columns - k);
      alignas(64) float decoded[kStripes][kTileColumns * kStripeRows];
      const uint8_t* weights[kStripes];
      bool half = false;
      for (size_t s = 0; s < kStripes; ++s) {
        weights[s] = reinterpret_cast<const uint8_t*>(decoded[s]);
        if constexpr (kLayout == Layout::kPacked) {
          const size_t element = ((stripe + s) * matrix.columns + k) * kStripeRows;
          const uint8_t* packed = reinterpret_cast<const uint8_t*>(matrix.data) + element * info.block_bytes;
          if (kHalf && job.n_tokens > Isa::kFloatTokens) {
            for (size_t i = 0; i < columns; ++i) {
              Isa::store_floats(decoded[s] + i * kStripeRows, Isa::load_halves(packed + i * 2 * kStripeRows));
            }
          } else {
            weights[s] = packed;
            half = kHalf;
          }
        } else {
          const size_t row_bytes = matrix.columns / info.block_elements * info.block_bytes;
          const PlainRows rows(matrix, stripe + s, row_bytes, k / info.block_elements * info.block_bytes);
          plain_f32(matrix.dtype, rows, columns, decoded[s]);
        }
      }
      for_token_groups<Isa::kFloatTokens>(job.n_tokens, [&](size_t first, size_t count) {
        const float* x = job.f32 + k * job.n_tokens + first * columns;
        (half ? kHalfMicros : kMicros)[count - 1](weights, x, columns, job.sums + first * kStripes * kStripeRows);
      });
    }
  }
};

/// f32 products of AQLM matrices (tensor/aqlm.h), whose tiles are decoded whole first.
struct AqlmProduct {
  template <size_t kStripes>
  static void sum(const StripeJob& job, size_t stripe) {
    static constexpr auto kMicros = f32_micros<false, kStripes>(std::make_index_sequence<Isa::kFloatTokens>());
    const Matrix& matrix = *job.matrix;
    const aqlm::Layout layout = aqlm::layout_of(matrix.rows, matrix.columns, matrix.data);
    const size_t group = layout.scheme.group;
    for (size_t k = 0; k < matrix.columns; k += kTileColumns) {
      const size_t columns = std::min(kTileColumns, matrix.columns - k);
      alignas(64) float decoded[kStripes][kTileColumns * kStripeRows];
      const uint8_t* weights[kStripes];
      for (size_t s = 0; s < kStripes; ++s) {
        alignas(64) float rows[kStripeRows][kTileColumns];
        const uint8_t* pointers[kStripeRows];
        for (size_t r = 0; r < kStripeRows; ++r) pointers[r] = reinterpret_cast<const uint8_t*>(rows[r]);
        const size_t row = (stripe + s) * kStripeRows;
        aqlm::MNEME_TARGET::decode_rows(layout, matrix.data, row / aqlm::kStripe, row % aqlm::kStripe, kStripeRows,
                                        k / group, (k + columns + group - 1) / group, rows[0], kTileColumns);
        transpose_words(pointers, columns, reinterpret_cast<uint8_t*>(decoded[s]));
        weights[s] = reinterpret_cast<const uint8_t*>(decoded[s]);
      }
      for_token_groups<Isa::kFloatTokens>(job.n_tokens, [&](size_t first, size_t count) {
        const float* x = job.f32 + k * job.n_tokens + first * columns;
        kMicros[count - 1](weights, x, columns, job.sums + first * kStripes * kStripeRows);
      });
    }
  }
};

/// Where the bfloat16 tiles of a product come from.
enum class Bf16Source : uint8_t { kRows, kPacked, kBitStack };

template <Bf16Source kSource>
struct Bf16Product {
  template <size_t kStripes>
  static void sum(const StripeJob& job, size_t stripe) {
    static constexpr auto kMicros = bf16_micros<kStripes>(std::make_index_sequence<Isa::kFloatTokens>());
    const Matrix& matrix = *job.matrix;
    const size_t padded = matrix.columns + matrix.columns % 2;
    for (size_t k = 0; k < matrix.columns; k += kTileColumns) {
      const size_t columns = std::min(kTileColumns, matrix.columns - k), even = columns + columns % 2;
      alignas(64) uint8_t gathered[kStripes][2 * kTileColumns * kStripeRows];
      const uint8_t* weights[kStripes];
      for (size_t s = 0; s < kStripes; ++s) {
        weights[s] = gathered[s];
        if constexpr (kSource == Bf16Source::kPacked) {
          const size_t element = ((stripe + s) * padded + k) * kStripeRows;
          weights[s] = reinterpret_cast<const uint8_t*>(matrix.data) + 2 * element;
        } else if constexpr (kSource == Bf16Source::kRows) {
          plain_bf16(PlainRows(matrix, stripe + s, 2 * matrix.columns, 2 * k), columns, gathered[s]);
        } else if constexpr (kSource == Bf16Source::kBitStack) {
          decode_stack(matrix, stripe + s, k, columns, gathered[s]);
        }
      }
      for_token_groups<Isa::kFloatTokens>(job.n_tokens, [&](size_t first, size_t count) {
        const uint16_t* x = job.bf16 + k * job.n_tokens + first * even;
        kMicros[count - 1](weights, x, even, job.sums + first * kStripes * kStripeRows);
      });
    }
  }
};

/// Products of the lossless formats, to the bits of those of bfloat16.
template <template <size_t> class Tiles>
struct LosslessProduct {
  template <size_t kStripes>
  static void sum(const StripeJob& job, size_t stripe) {
    static constexpr auto kMicros = bf16_micros<kStripes>(std::make_index_sequence<Isa::kFloatTokens>());
    const Matrix& matrix = *job.matrix;
    const dfloat::TileGrid grid{matrix.rows, matrix.columns};
    for (size_t k = 0; k < matrix.columns; k += kTileColumns) {
      Tiles<kStripes> tiles(matrix.data, grid, stripe, k / kTileColumns);
      if (job.n_tokens == 1) {
        dot_tiles<kStripes>(tiles, job.bf16 + k, job.sums);
        continue;
      }
      alignas(64) uint8_t words[kStripes][2 * kTileColumns * kStripeRows];
      const uint8_t* weights[kStripes];
      for (size_t s = 0; s < kStripes; ++s) {
        store_tile(tiles, s, words[s]);
        weights[s] = words[s];
      }
      const size_t columns = tiles.words() / kStripeRows;
      for_token_groups<Isa::kFloatTokens>(job.n_tokens, [&](size_t first, size_t count) {
        const uint16_t* x = job.bf16 + k * job.n_tokens + first * columns;
        kMicros[count - 1](weights, x, columns, job.sums + first * kStripes * kStripeRows);
      });
    }
  }
};

template <class Product>
void run(const StripeJob& job) {
  constexpr size_t kMost = Isa::kStripes;
  size_t stripe = job.first_stripe;
  for (; stripe + kMost <= job.last_stripe; stripe += kMost) {
    std::fill_n(job.sums, job.n_tokens * kMost * kStripeRows, 0.0f);
    Product::template sum<kMost>(job, stripe);
    write_rows(job, stripe, kMost);
  }
  for (; stripe < job.last_stripe; ++stripe) {
    std::fill_n(job.sums, job.n_tokens * kStripeRows, 0.0f);
    Product::template sum<1>(job, stripe);
    write_rows(job, stripe, 1);
  }
}

template <class Format>
constexpr ProductEntry int8_entry(Layout layout) {
  // Without VNNI wide levels are taken as signed: their zero moves by 128.
  constexpr int kZero = Isa::kSignedWide && is_wide<Format>() ? Format::kZero - 128 : Format::kZero;
  return {layout == Layout::kPacked ? &run<Int8Product<Format, Layout::kPacked>>
                                    : &run<Int8Product<Format, Layout::kPlain>>,
          Currency::kInt8, Format::kGroup, Format::kMinimum, kZero};
}

inline ProductEntry signs_entry() {
  return {&run<Int8Product<Signs, Layout::kPacked>>, Currency::kInt8, Signs::kGroup, false, Signs::kZero};
}

inline ProductEntry find_entry(DType dtype, Layout layout) {
  const bool packed = layout == Layout::kPacked;
  switch (dtype) {
#define MNEME_CASE(Format) \
  case Format::kDType:     \
    return int8_entry<Format>(layout);
    MNEME_INT8_FORMATS(MNEME_CASE)
#undef MNEME_CASE
    case DType::kBF16:
      return {packed ? &run<Bf16Product<Bf16Source::kPacked>> : &run<Bf16Product<Bf16Source::kRows>>, Currency::kBf16};
    case DType::kDf11:
      return {packed ? nullptr : &run<LosslessProduct<Df11Tiles>>, Currency::kBf16};
    case DType::kDf12:
      return {packed ? nullptr : &run<LosslessProduct<Df12Tiles>>, Currency::kBf16};
    case DType::kBitStack:
      return {packed ? nullptr : &run<Bf16Product<Bf16Source::kBitStack>>, Currency::kBf16};
    case DType::kAqlm:
      return {packed ? nullptr : &run<AqlmProduct>, Currency::kF32};
    case DType::kF32:
      if (packed) return {&run<F32Product<DType::kF32, Layout::kPacked>>, Currency::kF32};
      break;
    case DType::kF16:
      if (packed) return {&run<F32Product<DType::kF16, Layout::kPacked>>, Currency::kF32};
      break;
    default:
      break;
  }
  if (packed || dtype_info(dtype).decode == nullptr) return {};
  return {&run<F32Product<DType::kF32, Layout::kPlain>>, Currency::kF32};
}

}  // namespace mneme::kernels::products::MNEME_TARGET
