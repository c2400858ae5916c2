#include "tensor/dtype.h"

#include <algorithm>
#include <cassert>
#include <cctype>

#include "tensor/codecs.h"

namespace mneme {
namespace {

using namespace codecs;

constexpr DTypeInfo kTable[] = {
    {DType::kF32, "F32", 1, 4, decode_f32, encode_f32},
    {DType::kF16, "F16", 1, 2, decode_f16, encode_f16},
    {DType::kQ4_0, "Q4_0", 32, 18, decode_q4_0, encode_q4_0},
    {DType::kQ4_1, "Q4_1", 32, 20, decode_q4_1, encode_q4_1},
    {DType::kQ5_0, "Q5_0", 32, 22, decode_q5_0, encode_q5_0},
    {DType::kQ5_1, "Q5_1", 32, 24, decode_q5_1, encode_q5_1},
    {DType::kQ8_0, "Q8_0", 32, 34, decode_q8_0, encode_q8_0},
    {DType::kQ8_1, "Q8_1", 32, 36, nullptr, nullptr},
    {DType::kQ2_K, "Q2_K", 256, 84, decode_q2_k, encode_q2_k},
    {DType::kQ3_K, "Q3_K", 256, 110, decode_q3_k, encode_q3_k},
    {DType::kQ4_K, "Q4_K", 256, 144, decode_q4_k, encode_q4_k},
    {DType::kQ5_K, "Q5_K", 256, 176, decode_q5_k, encode_q5_k},
    {DType::kQ6_K, "Q6_K", 256, 210, decode_q6_k, encode_q6_k},
    {DType::kQ8_K, "Q8_K", 256, 292, nullptr, nullptr},
    {DType::kIQ2_XXS, "IQ2_XXS", 256, 66, nullptr, nullptr},
    {DType::kIQ2_XS, "IQ2_XS", 256, 74, nullptr, nullptr},
    {DType::kIQ3_XXS, "IQ3_XXS", 256, 98, nullptr, nullptr},
    {DType::kIQ1_S, "IQ1_S", 256, 50, nullptr, nullptr},
    {DType::kIQ4_NL, "IQ4_NL", 32, 18, decode_iq4_nl, encode_iq4_nl},
    {DType::kIQ3_S, "IQ3_S", 256, 110, nullptr, nullptr},
    {DType::kIQ2_S, "IQ2_S", 256, 82, nullptr, nullptr},
    {DType::kIQ4_XS, "IQ4_XS", 256, 136, decode_iq4_xs, encode_iq4_xs},
    {DType::kI8, "I8", 1, 1, decode_i8, nullptr},
    {DType::kI16, "I16", 1, 2, decode_i16, nullptr},
    {DType::kI32, "I32", 1, 4, decode_i32, nullptr},
    {DType::kI64, "I64", 1, 8, decode_i64, nullptr},
    {DType::kF64, "F64", 1, 8, decode_f64, nullptr},
    {DType::kIQ1_M, "IQ1_M", 256, 56, nullptr, nullptr},
    {DType::kBF16, "BF16", 1, 2, decode_bf16, encode_bf16},
    {DType::kTQ1_0, "TQ1_0", 256, 54, decode_tq1_0, encode_tq1_0},
    {DType::kTQ2_0, "TQ2_0", 256, 66, decode_tq2_0, encode_tq2_0},
    {DType::kMXFP4, "MXFP4", 32, 17, decode_mxfp4, encode_mxfp4},
    {DType::kNVFP4, "NVFP4", 64, 36, decode_nvfp4, encode_nvfp4},
    {DType::kQ1_0, "Q1_0", 128, 18, decode_q1_0, encode_q1_0},
    {DType::kQ2_0, "Q2_0", 64, 18, decode_q2_0, encode_q2_0},
    {DType::kBitMod3, "BITMOD3", 128, 50, decode_bitmod3, encode_bitmod3},
    {DType::kBitMod4, "BITMOD4", 128, 66, decode_bitmod4, encode_bitmod4},
    {DType::kDf11, "DF11", 4, 0, nullptr, nullptr},
    {DType::kDf12, "DF12", 4, 0, nullptr, nullptr},
    {DType::kBitStack, "BITSTACK", 1, 0, nullptr, nullptr},
    {DType::kAqlm, "AQLM", 1, 0, nullptr, nullptr},
    {DType::kBipolar1, "BIPOLAR1", 128, 18, decode_bipolar<1>, encode_bipolar<1>},
    {DType::kBipolar2, "BIPOLAR2", 128, 34, decode_bipolar<2>, encode_bipolar<2>},
    {DType::kBipolar3, "BIPOLAR3", 128, 50, decode_bipolar<3>, encode_bipolar<3>},
    {DType::kBipolar4, "BIPOLAR4", 128, 66, decode_bipolar<4>, encode_bipolar<4>},
    {DType::kBipolar5, "BIPOLAR5", 128, 82, decode_bipolar<5>, encode_bipolar<5>},
    {DType::kBipolar6, "BIPOLAR6", 128, 98, decode_bipolar<6>, encode_bipolar<6>},
    {DType::kBipolar7, "BIPOLAR7", 128, 114, decode_bipolar<7>, encode_bipolar<7>},
    {DType::kBipolar8, "BIPOLAR8", 128, 130, decode_bipolar<8>, encode_bipolar<8>},
};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

}  // namespace

const DTypeInfo* find_dtype(uint32_t gguf_id) {
  for (const DTypeInfo& info : kTable) {
    if (static_cast<uint32_t>(info.dtype) == gguf_id) return &info;
  }
  return nullptr;
}

const DTypeInfo* find_dtype(std::string_view name) {
  for (const DTypeInfo& info : kTable) {
    if (equal_ignoring_case(info.name, name)) return &info;
  }
  return nullptr;
}

const DTypeInfo& dtype_info(DType dtype) {
  const DTypeInfo* info = find_dtype(static_cast<uint32_t>(dtype));
  assert(info != nullptr);
  return *info;
}

std::span<const DTypeInfo> all_dtypes() { return kTable; }

bool is_stream(DType dtype) { return dtype_info(dtype).block_bytes == 0; }

size_t row_bytes(DType dtype, size_t elements) {
  const DTypeInfo& info = dtype_info(dtype);
  assert(elements % info.block_elements == 0);
  return elements / info.block_elements * info.block_bytes;
}

}  // namespace mneme
