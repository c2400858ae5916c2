#pragma once

#include <cstddef>
#include <cstdint>

/// Scalar decoders and encoders of the block formats, one pair a format; dtype.cpp lists them in the table of formats.
/// The layouts are those of GGUF files: fields in byte order, half-precision scales, little-endian.
///
/// Decoders are exact: every product fits a float, and formats with a minimum round once. Encoders of the simple
/// formats follow the reference rule to the bit when no importance is given; those of the K and IQ4 formats search for
/// scales.
namespace mneme::codecs {

void decode_f32(const std::byte* blocks, float* out, size_t n);
void decode_f16(const std::byte* blocks, float* out, size_t n);
void decode_bf16(const std::byte* blocks, float* out, size_t n);
void decode_f64(const std::byte* blocks, float* out, size_t n);
void decode_i8(const std::byte* blocks, float* out, size_t n);
void decode_i16(const std::byte* blocks, float* out, size_t n);
void decode_i32(const std::byte* blocks, float* out, size_t n);
void decode_i64(const std::byte* blocks, float* out, size_t n);

void encode_f32(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_f16(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_bf16(const float* in, const float* importance, std::byte* blocks, size_t n);

// Blocks of 32 with one scale, and a minimum for those ending in 1.
void decode_q4_0(const std::byte* blocks, float* out, size_t n);
void decode_q4_1(const std::byte* blocks, float* out, size_t n);
void decode_q5_0(const std::byte* blocks, float* out, size_t n);
void decode_q5_1(const std::byte* blocks, float* out, size_t n);
void decode_q8_0(const std::byte* blocks, float* out, size_t n);

void encode_q4_0(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q4_1(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q5_0(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q5_1(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q8_0(const float* in, const float* importance, std::byte* blocks, size_t n);

// Super-blocks of 256 whose 16 or 8 sub-blocks have small integer scales (and minima).
void decode_q2_k(const std::byte* blocks, float* out, size_t n);
void decode_q3_k(const std::byte* blocks, float* out, size_t n);
void decode_q4_k(const std::byte* blocks, float* out, size_t n);
void decode_q5_k(const std::byte* blocks, float* out, size_t n);
void decode_q6_k(const std::byte* blocks, float* out, size_t n);

void encode_q2_k(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q3_k(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q4_k(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q5_k(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q6_k(const float* in, const float* importance, std::byte* blocks, size_t n);

// Codes of one block, whose scales stay (block_codes.h).
void store_q2_k_codes(const uint8_t* codes, std::byte* block);
void store_q3_k_codes(const uint8_t* codes, std::byte* block);
void store_q4_k_codes(const uint8_t* codes, std::byte* block);
void store_q5_k_codes(const uint8_t* codes, std::byte* block);
void store_q6_k_codes(const uint8_t* codes, std::byte* block);
void store_iq4_xs_codes(const uint8_t* codes, std::byte* block);
void store_nvfp4_codes(const uint8_t* codes, std::byte* block);

// Four bits that index a table of unevenly spaced levels.
void decode_iq4_nl(const std::byte* blocks, float* out, size_t n);
void decode_iq4_xs(const std::byte* blocks, float* out, size_t n);
void encode_iq4_nl(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_iq4_xs(const float* in, const float* importance, std::byte* blocks, size_t n);

// Four-bit floats with a shared scale.
void decode_mxfp4(const std::byte* blocks, float* out, size_t n);
void decode_nvfp4(const std::byte* blocks, float* out, size_t n);
void encode_mxfp4(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_nvfp4(const float* in, const float* importance, std::byte* blocks, size_t n);

// One or two bits, and base-3 digits.
void decode_tq1_0(const std::byte* blocks, float* out, size_t n);
void decode_tq2_0(const std::byte* blocks, float* out, size_t n);
void decode_q1_0(const std::byte* blocks, float* out, size_t n);
void decode_q2_0(const std::byte* blocks, float* out, size_t n);
void encode_tq1_0(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_tq2_0(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q1_0(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_q2_0(const float* in, const float* importance, std::byte* blocks, size_t n);

// BitMoD: three or four bits, one of four sets of levels a group of 128 (bitmod.h).
void decode_bitmod3(const std::byte* blocks, float* out, size_t n);
void decode_bitmod4(const std::byte* blocks, float* out, size_t n);
void encode_bitmod3(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_bitmod4(const float* in, const float* importance, std::byte* blocks, size_t n);

// Bipolar integers of 1 to 8 bits (bipolar.h).
template <int kBits>
void decode_bipolar(const std::byte* blocks, float* out, size_t n);
template <int kBits>
void encode_bipolar(const float* in, const float* importance, std::byte* blocks, size_t n);

}  // namespace mneme::codecs
