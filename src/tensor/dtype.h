#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace mneme {

/// Element type of a stored tensor. The values are the type ids of GGUF files and never change. Types that only mneme
/// knows are numbered from kOwnTypes on ("MN" in the upper half; docs/formats/weight-types.md).
constexpr uint32_t kOwnTypes = 0x4d4e0000;
enum class DType : uint32_t {
  kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ8_1 = 9,
  kQ2_K = 10, kQ3_K = 11, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kQ8_K = 15,
  kIQ2_XXS = 16, kIQ2_XS = 17, kIQ3_XXS = 18, kIQ1_S = 19, kIQ4_NL = 20, kIQ3_S = 21, kIQ2_S = 22, kIQ4_XS = 23,
  kI8 = 24, kI16 = 25, kI32 = 26, kI64 = 27, kF64 = 28, kIQ1_M = 29, kBF16 = 30,
  kTQ1_0 = 34, kTQ2_0 = 35, kMXFP4 = 39, kNVFP4 = 40, kQ1_0 = 41, kQ2_0 = 42,
  kBitMod3 = kOwnTypes + 3, kBitMod4 = kOwnTypes + 4, kDf11 = kOwnTypes + 11, kDf12 = kOwnTypes + 12,
  kBitStack = kOwnTypes + 16, kAqlm = kOwnTypes + 17,
  kBipolar1 = kOwnTypes + 0x21, kBipolar2, kBipolar3, kBipolar4, kBipolar5, kBipolar6, kBipolar7, kBipolar8,
};

/// Decodes `n` elements (a multiple of the block size) from blocks to f32.
using DecodeFn = void (*)(const std::byte* blocks, float* out, size_t n);
/// Encodes `n` elements (a multiple of the block size) to blocks. `importance` has n non-negative weights of the squared
/// error, or is null for the format's own rule.
using EncodeFn = void (*)(const float* in, const float* importance, std::byte* blocks, size_t n);

/// What is known of an element type: one row of the one table of formats.
struct DTypeInfo {
  DType dtype;
  std::string_view name;     ///< As GGUF tools print it, e.g. "Q4_K".
  size_t block_elements;     ///< Elements of one block; rows are a multiple of it.
  size_t block_bytes;        ///< 0 for types that store a whole matrix as one stream (weight_format.h).
  DecodeFn decode;           ///< Null when the layout is recognised but its values cannot be read.
  EncodeFn encode;           ///< Null when mneme cannot write it.
};

/// The row of a type; the type must be one of the enumerators.
const DTypeInfo& dtype_info(DType dtype);
/// The row of a GGUF type id, or null for unknown and removed ids.
const DTypeInfo* find_dtype(uint32_t gguf_id);
/// The row of a type by name, upper or lower case, or null.
const DTypeInfo* find_dtype(std::string_view name);
/// All rows, ordered by id.
std::span<const DTypeInfo> all_dtypes();

/// True for types whose size depends on the values.
bool is_stream(DType dtype);

/// Bytes of one row of `elements` values (a multiple of the block size).
size_t row_bytes(DType dtype, size_t elements);

}  // namespace mneme
