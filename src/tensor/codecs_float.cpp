#include <cstring>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"

namespace mneme::codecs {
namespace {

template <typename T>
void decode_number(const std::byte* blocks, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(load_as<T>(blocks + sizeof(T) * i));
}

}  // namespace

void decode_f32(const std::byte* blocks, float* out, size_t n) {
  std::memcpy(out, blocks, n * sizeof(float));
}

void encode_f32(const float* in, const float*, std::byte* blocks, size_t n) {
  std::memcpy(blocks, in, n * sizeof(float));
}

void decode_f16(const std::byte* blocks, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = load_f16(blocks + 2 * i);
}

void encode_f16(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t i = 0; i < n; ++i) store_f16(blocks + 2 * i, in[i]);
}

void decode_bf16(const std::byte* blocks, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = bf16_to_f32(load_as<uint16_t>(blocks + 2 * i));
}

void encode_bf16(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t i = 0; i < n; ++i) store_as(blocks + 2 * i, f32_to_bf16(in[i]));
}

void decode_f64(const std::byte* blocks, float* out, size_t n) {
  decode_number<double>(blocks, out, n);
}
void decode_i8(const std::byte* blocks, float* out, size_t n) {
  decode_number<int8_t>(blocks, out, n);
}
void decode_i16(const std::byte* blocks, float* out, size_t n) {
  decode_number<int16_t>(blocks, out, n);
}
void decode_i32(const std::byte* blocks, float* out, size_t n) {
  decode_number<int32_t>(blocks, out, n);
}
void decode_i64(const std::byte* blocks, float* out, size_t n) {
  decode_number<int64_t>(blocks, out, n);
}

}  // namespace mneme::codecs
