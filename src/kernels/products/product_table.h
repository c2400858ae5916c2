#pragma once

#include "kernels/matmul.h"
#include "kernels/products/format.h"

/// The dispatch table of product kernels: one per target.
namespace mneme::kernels::products {

/// What a type's products read.
enum class Currency : uint8_t { kInt8, kBf16, kF32, kPlanes };

/// Activations in 8 bits, after the MXINT8 format (OCP Microscaling, v1.0): blocks of 32 share a power-of-two scale
/// 2^e, the smallest with max|x| <= 127 * 2^e. Arrays run over tiles of 256 columns, then tokens: [tile][token][in
/// tile].
struct Int8Activations {
  const int8_t* levels;  ///< [tile][token][256]
  /// 1.5 * 2^(23 + e) per block, NaN for blocks with a value that is not finite: adding n to the bits adds n * 2^e to
  /// the value, so an integer sum becomes a scaled float by one subtraction. [tile][token][8]
  const float* anchor;
  /// Bits of the anchor less zero * sum of levels, per group: where the integer sum starts. [tile][token][groups]
  const int32_t* start;
  const float* sum;  ///< Sum of 2^e * level per group, for types with minimum. [tile][token][groups]
};

/// Activations as bipolar integers in bit-planes: groups of 128 columns share a scale max|x| / (2^bits - 1).
struct PlaneActivations {
  const uint32_t* words;  ///< [token][group][bit][4]: bit k % 32 of word k / 32 belongs to column k of the group.
  const float* scale;     ///< [token][group]; NaN for groups with a value that is not finite.
  int bits;
};

/// One call for stripes [first_stripe, last_stripe) and all tokens.
struct StripeJob {
  const Matrix* matrix;
  size_t first_stripe, last_stripe;
  size_t n_tokens;
  Int8Activations int8;
  const uint16_t* bf16;  ///< [tile][token][columns in tile, rounded up to even]
  const float* f32;      ///< [tile][token][columns in tile]
  PlaneActivations planes;
  const float* bias;  ///< [rows] or null
  float* y;
  size_t y_stride;
  float* sums;  ///< Working memory: n_tokens x kMaxJobRows floats, 64-byte aligned.
};

/// Products with AQLM matrices by tables (aqlm_tables-inl.h). Tables are numbered group by group, then codebook.
constexpr size_t kTablesAScale = 16, kMostTableEntries = 256;
struct LookUpBooks {
  const float* values;  ///< Codebooks [codebook][in group][size], zeros behind the last entry.
  size_t n_books, group, size, n_tables;
};
/// One call for stripes of 32 rows and all tokens.
struct LookUpJob {
  const uint8_t* codes;         ///< As they are stored, from the first stripe of the matrix on.
  const std::byte* row_scales;  ///< f16 [rows]
  const int8_t* tables;         ///< [token][table][size]
  const float* scales;          ///< [token][block of kTablesAScale tables]
  size_t token_bytes, n_blocks, n_tables, size;
  unsigned bits;
  size_t n_tokens, n_rows, first_stripe, last_stripe;
  const float* bias;  ///< [rows] or null
  float* y;
  size_t y_stride;
};

/// Rows that a kernel works on at a time at most.
constexpr size_t kMaxJobRows = 2 * kStripeRows;

/// How one type and layout is multiplied.
struct ProductEntry {
  void (*run)(const StripeJob& job) = nullptr;
  Currency currency = Currency::kF32;
  uint8_t group = kBlockColumns;  ///< Columns a scale; kInt8 only.
  bool minimum = false;
  int zero = 0;  ///< What the integer sums must be corrected for on this target.
  int bits = 0;  ///< Bits of the activations; kPlanes only.
};

struct ProductTable {
  ProductEntry (*find)(DType dtype, Layout layout);
  /// Products of bipolar types by bit-planes.
  ProductEntry (*find_planes)(DType dtype, Layout layout);
  /// Products with the signs of a BitStack block, packed as they are stored (tensor/bitstack.h), in 8 bits.
  ProductEntry (*find_signs)();
  /// Quantises `n_blocks` blocks of 32 floats: levels, anchors and the level sums of both halves of each block.
  /// `limit`: see Matrix::input_limit.
  void (*quantize)(const float* x, size_t n_blocks, float limit, int8_t* levels, float* anchors, int16_t* half_sums);
  void (*to_bf16)(const float* x, size_t n, uint16_t* out);
  /// Quantises 128 floats to `bits` planes of four words and their scale.
  void (*quantize_planes)(const float* x, int bits, uint32_t* planes, float* scale);
  /// Makes the tables of one block for an input of `columns` floats, and their scale.
  void (*make_look_up_tables)(const LookUpBooks& books, const float* x, size_t columns, size_t block, int8_t* tables,
                              float* scale);
  void (*look_up)(const LookUpJob& job);
};

/// The table of the active target.
const ProductTable& product_table();

const ProductTable& portable_table();
#if defined(__x86_64__)
const ProductTable& avx2_table();
const ProductTable& avx512_table();
#endif

}  // namespace mneme::kernels::products
