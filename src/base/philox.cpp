#include "base/philox.h"

#include <cmath>
#include <numbers>

namespace mneme {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

uint32_t PhiloxStream::next_u32() {
  const uint64_t index = position_ / 4;
  if (index != block_index_) {
    block_ = philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(stream_),
                         static_cast<uint32_t>(stream_ >> 32)},
                        {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
    block_index_ = index;
  }
  return block_[position_++ % 4];
}

float PhiloxStream::next_normal() {
  const float radius = std::sqrt(-2.0f * std::log(1.0f - next_float()));
  return radius * std::cos(2.0f * std::numbers::pi_v<float> * next_float());
}

__extension__ using Wide = unsigned __int128;

uint64_t PhiloxStream::next_below(uint64_t n) {
  return static_cast<uint64_t>((static_cast<Wide>(next_u64()) * n) >> 64);
}

}  // namespace mneme
