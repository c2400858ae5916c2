#include <cstring>

#include "base/half.h"
#include "tensor/codecs.h"

namespace mneme::codecs {

void decode_q8_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 32; ++b, blocks += 34, out += 32) {
    uint16_t half = 0;
    std::memcpy(&half, blocks, sizeof half);
    const float d = f16_to_f32(half);
    for (size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(blocks[2 + i]));
  }
}

void decode_q4_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 32; ++b, blocks += 18, out += 32) {
    uint16_t half = 0;
    std::memcpy(&half, blocks, sizeof half);
    const float d = f16_to_f32(half);
    for (size_t j = 0; j < 16; ++j) {
      const int byte = static_cast<int>(blocks[2 + j]);
      out[j] = d * static_cast<float>((byte & 15) - 8);
      out[j + 16] = d * static_cast<float>((byte >> 4) - 8);
    }
  }
}

}  // namespace mneme::codecs
