#include <cstring>

#include "base/half.h"
#include "tensor/codecs.h"

namespace mneme::codecs {
namespace {

uint16_t load_u16(const std::byte* at) {
  uint16_t value = 0;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

void decode_f32(const std::byte* blocks, float* out, size_t n) { std::memcpy(out, blocks, n * sizeof(float)); }

void encode_f32(const float* in, const float*, std::byte* blocks, size_t n) {
  std::memcpy(blocks, in, n * sizeof(float));
}

void decode_f16(const std::byte* blocks, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = f16_to_f32(load_u16(blocks + 2 * i));
}

void encode_f16(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t half = f32_to_f16(in[i]);
    std::memcpy(blocks + 2 * i, &half, sizeof half);
  }
}

void decode_bf16(const std::byte* blocks, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = bf16_to_f32(load_u16(blocks + 2 * i));
}

void encode_bf16(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t half = f32_to_bf16(in[i]);
    std::memcpy(blocks + 2 * i, &half, sizeof half);
  }
}

}  // namespace mneme::codecs
