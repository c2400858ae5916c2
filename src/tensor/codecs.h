#pragma once

#include <cstddef>

/// Scalar decoders and encoders of the block formats, one pair a format; dtype.cpp lists them in the table of formats.
/// The layouts are those of GGUF files: fields in byte order, half-precision scales, little-endian.
namespace mneme::codecs {

void decode_f32(const std::byte* blocks, float* out, size_t n);
void decode_f16(const std::byte* blocks, float* out, size_t n);
void decode_bf16(const std::byte* blocks, float* out, size_t n);
void decode_q4_0(const std::byte* blocks, float* out, size_t n);
void decode_q8_0(const std::byte* blocks, float* out, size_t n);

void encode_f32(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_f16(const float* in, const float* importance, std::byte* blocks, size_t n);
void encode_bf16(const float* in, const float* importance, std::byte* blocks, size_t n);

}  // namespace mneme::codecs
