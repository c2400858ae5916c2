#pragma once

#include <array>
#include <cstdint>

namespace mneme {

/// Philox4x32-10 (Salmon et al., SC 2011): four random words as a pure function of counter and key. There is no state, so
/// any draw can be repeated: the same (seed, stream, position) always gives the same number.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A sequence of random numbers over Philox, addressed by (seed, stream). Cheap to copy; the position can be saved.
class PhiloxStream {
 public:
  explicit PhiloxStream(uint64_t seed, uint64_t stream = 0, uint64_t position = 0)
      : seed_(seed), stream_(stream), position_(position) {}

  uint32_t next_u32();
  uint64_t next_u64() { return (static_cast<uint64_t>(next_u32()) << 32) | next_u32(); }
  /// Uniform in [0, 1) with 24 random bits.
  float next_float() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }
  /// Uniform in [0, 1) with 53 random bits.
  double next_double() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  /// Standard normal (Box-Muller); uses two words.
  float next_normal();
  /// Uniform in [0, n), n > 0, without bias worth noticing for n << 2^64.
  uint64_t next_below(uint64_t n);

  /// Words drawn so far; PhiloxStream(seed, stream, position()) continues identically.
  uint64_t position() const { return position_; }

 private:
  uint64_t seed_, stream_, position_;
  std::array<uint32_t, 4> block_{};
  uint64_t block_index_ = ~uint64_t{0};
};

}  // namespace mneme
