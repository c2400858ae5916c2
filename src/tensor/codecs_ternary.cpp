#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"

namespace mneme::codecs {
namespace {

float peak_magnitude(const float* x, size_t n) {
  return std::fabs(signed_peak(x, n));
}

/// A block of N weights as d * t, t in {-1, 0, 1}.
template <size_t N>
struct TernaryFit {
  float d;
  std::array<int, N> codes;  ///< t + 1.
};

/// Without importance by the rule of the formats: d = max|x|, t = round(x / d), which is exact for weights that are
/// ternary already and keeps little of others. With importance h the sum of h (x - d t)^2 is made least: t is the sign
/// of the k largest magnitudes and 0 elsewhere, d = sum h |x| / sum h over those, which lowers the sum by d^2 sum h;
/// the best k is taken.
template <size_t N>
TernaryFit<N> fit_ternary(const float* x, const float* importance) {
  TernaryFit<N> out{peak_magnitude(x, N), {}};
  if (importance == nullptr) {
    const float inverse = inverse_or_zero(out.d);
    for (size_t i = 0; i < N; ++i) out.codes[i] = std::clamp(static_cast<int>(std::lround(x[i] * inverse)) + 1, 0, 2);
    return out;
  }
  std::array<double, N> sizes;
  std::array<size_t, N> order;
  for (size_t i = 0; i < N; ++i) sizes[i] = std::isfinite(x[i]) ? std::fabs(static_cast<double>(x[i])) : 0;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  double sum = 0, weights = 0, best = 0, least = 0, d = 0;  // magnitudes from `least` on are not 0
  for (size_t k = 0; k < N; ++k) {
    const double h = std::max(0.0, static_cast<double>(importance[order[k]]));
    sum += h * sizes[order[k]];
    weights += h;
    const bool more_alike = k + 1 < N && sizes[order[k + 1]] == sizes[order[k]];
    if (more_alike || !(sum > 0) || !(sum * sum / weights > best)) continue;
    best = sum * sum / weights;
    d = sum / weights;
    least = sizes[order[k]];
  }
  out.d = static_cast<float>(d);
  for (size_t i = 0; i < N; ++i) out.codes[i] = best > 0 && sizes[i] >= least ? (x[i] < 0 ? 0 : 2) : 1;
  return out;
}

/// TQ1_0 keeps five base-3 digits in a byte as a fraction of 256, first digit first: multiplying by 3 moves the next
/// digit above the point. Digit n of a group is element first + n * stride + index of the byte.
struct DigitGroup {
  size_t first_byte, n_bytes, first_element, n_digits;
};
constexpr std::array<DigitGroup, 3> kDigitGroups = {{{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}}};
constexpr std::array<int, 5> kPowersOf3 = {1, 3, 9, 27, 81};

}  // namespace

void decode_tq1_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 54, out += kSuper) {
    const float d = load_f16(blocks + 52);
    for (const DigitGroup& group : kDigitGroups) {
      for (size_t digit = 0; digit < group.n_digits; ++digit) {
        for (size_t i = 0; i < group.n_bytes; ++i) {
          const int shifted = (load_u8(blocks + group.first_byte + i) * kPowersOf3[digit]) & 255;
          out[group.first_element + digit * group.n_bytes + i] = d * static_cast<float>((shifted * 3 >> 8) - 1);
        }
      }
    }
  }
}

void encode_tq1_0(const float* in, const float* importance, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 54, in += kSuper) {
    const auto fit = fit_ternary<kSuper>(in, importance == nullptr ? nullptr : importance + b * kSuper);
    for (const DigitGroup& group : kDigitGroups) {
      for (size_t i = 0; i < group.n_bytes; ++i) {
        int number = 0;
        for (size_t digit = 0; digit < group.n_digits; ++digit) {
          number += fit.codes[group.first_element + digit * group.n_bytes + i] * kPowersOf3[4 - digit];
        }
        store_u8(blocks + group.first_byte + i, (number * 256 + 242) / 243);
      }
    }
    store_f16(blocks + 52, fit.d);
  }
}

void decode_tq2_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 66, out += kSuper) {
    const float d = load_f16(blocks + 64);
    for (size_t i = 0; i < kSuper; ++i) {
      const int code = (load_u8(blocks + 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32))) & 3;
      out[i] = d * static_cast<float>(code - 1);
    }
  }
}

void encode_tq2_0(const float* in, const float* importance, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 66, in += kSuper) {
    const auto fit = fit_ternary<kSuper>(in, importance == nullptr ? nullptr : importance + b * kSuper);
    for (size_t i = 0; i < 64; ++i) {
      const int* group = fit.codes.data() + 128 * (i / 32) + i % 32;
      int byte = 0;
      for (size_t level = 0; level < 4; ++level) byte |= group[32 * level] << (2 * level);
      store_u8(blocks + i, byte);
    }
    store_f16(blocks + 64, fit.d);
  }
}

void decode_q1_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 128; ++b, blocks += 18, out += 128) {
    const float d = load_f16(blocks);
    for (size_t i = 0; i < 128; ++i) out[i] = (load_u8(blocks + 2 + i / 8) >> (i % 8)) & 1 ? d : -d;
  }
}

void encode_q1_0(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / 128; ++b, blocks += 18, in += 128) {
    float sum = 0.0f;
    for (size_t i = 0; i < 128; ++i) sum += std::fabs(in[i]);
    store_f16(blocks, sum / 128.0f);
    for (size_t i = 0; i < 16; ++i) {
      int byte = 0;
      for (size_t bit = 0; bit < 8; ++bit) byte |= (in[8 * i + bit] >= 0.0f ? 1 : 0) << bit;
      store_u8(blocks + 2 + i, byte);
    }
  }
}

void decode_q2_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 64; ++b, blocks += 18, out += 64) {
    const float d = load_f16(blocks);
    for (size_t i = 0; i < 64; ++i) {
      out[i] = d * static_cast<float>(((load_u8(blocks + 2 + i / 4) >> (2 * (i % 4))) & 3) - 1);
    }
  }
}

void encode_q2_0(const float* in, const float* importance, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / 64; ++b, blocks += 18, in += 64) {
    const auto fit = fit_ternary<64>(in, importance == nullptr ? nullptr : importance + b * 64);
    for (size_t i = 0; i < 16; ++i) {
      int byte = 0;
      for (size_t k = 0; k < 4; ++k) byte |= fit.codes[4 * i + k] << (2 * k);
      store_u8(blocks + 2 + i, byte);
    }
    store_f16(blocks, fit.d);
  }
}

}  // namespace mneme::codecs
