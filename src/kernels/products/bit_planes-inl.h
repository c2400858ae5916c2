#pragma once

#include "kernels/products/activations-inl.h"
#include "kernels/products/operands-inl.h"

// Products of bipolar integers by bit-planes (tensor/bipolar.h): with weight planes W_i and activation planes X_j of
// +-1,
//
//     sum over k of b_w b_x = sum over i, j of 2^(i+j) (n - 2 popcount(W_i xor X_j)),   n = 128 columns a group
//
// as integers, then scale of the weights' group times scale of the activations' group. Exact below 2^24, so every
// target gives the same integers. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

constexpr size_t kPlaneGroup = 128, kPlaneWords = kPlaneGroup / 32;

/// Activations of one group as planes and scale; see PlaneActivations.
inline void quantize_planes(const float* x, int bits, uint32_t* planes, float* scale) {
  float largest = 0;
  bool finite = true;
  for (size_t i = 0; i < kPlaneGroup; ++i) {
    const float magnitude = std::fabs(x[i]);
    largest = magnitude > largest ? magnitude : largest;
    finite = finite && magnitude <= std::numeric_limits<float>::max();
  }
  const auto top = static_cast<float>((1 << bits) - 1);
  *scale = finite ? largest / top : std::numeric_limits<float>::quiet_NaN();
  const float inverse = finite && largest > 0 ? top / largest : 0.0f;
  int32_t codes[kPlaneGroup];
  for (size_t i = 0; i < kPlaneGroup; ++i) {
    const float code = (x[i] * inverse + top) * 0.5f + 0.5f;  // from 0.5 to top + 0.5
    codes[i] = finite ? static_cast<int32_t>(code < top ? code : top) : 0;
  }
  for (int b = 0; b < bits; ++b) {
    for (size_t w = 0; w < kPlaneWords; ++w) {
      uint32_t word = 0;
      for (size_t i = 0; i < 32; ++i) word |= (static_cast<uint32_t>(codes[32 * w + i]) >> b & 1u) << i;
      planes[static_cast<size_t>(b) * kPlaneWords + w] = word;
    }
  }
}

/// One stripe's group of weights: 16 half-precision scales, then planes [bit][word][row].
template <int kBits>
struct PlaneBlock {
  alignas(64) uint16_t scale[kStripeRows];
  alignas(64) uint32_t planes[kBits][kPlaneWords][kStripeRows];
};

/// Gathers a group from plain rows.
template <int kBits>
void gather_planes(const PlainRows& rows, size_t group, PlaneBlock<kBits>& out) {
  constexpr size_t kBytes = Bipolar<kBits>::kBytes;
  for (size_t r = 0; r < kStripeRows; ++r) {
    const uint8_t* block = rows.rows[r] + group * kBytes;
    std::memcpy(&out.scale[r], block, 2);
    for (size_t b = 0; b < kBits; ++b) {
      for (size_t w = 0; w < kPlaneWords; ++w) std::memcpy(&out.planes[b][w][r], block + 2 + 16 * b + 4 * w, 4);
    }
  }
}

template <int kBits, bool kPacked>
void run_planes(const StripeJob& job) {
  constexpr size_t kMostTokens = 8;
  constexpr size_t kGroupBytes = kStripeRows * (2 + 16 * kBits);  // of the packed layout: scales, then planes
  const Matrix& matrix = *job.matrix;
  const size_t groups = matrix.columns / kPlaneGroup;
  const auto bits = static_cast<size_t>(job.planes.bits);
  const auto most =
      static_cast<float>(static_cast<int>(kPlaneGroup) * ((1 << kBits) - 1) * ((1 << job.planes.bits) - 1));
  for (size_t stripe = job.first_stripe; stripe < job.last_stripe; ++stripe) {
    const size_t first_row = stripe * kStripeRows, n_rows = std::min(kStripeRows, matrix.rows - first_row);
    for (size_t first = 0; first < job.n_tokens; first += kMostTokens) {
      const size_t n_tokens = std::min(kMostTokens, job.n_tokens - first);
      Isa::Floats sums[kMostTokens];
      for (Isa::Floats& sum : sums) sum = Isa::zero_floats();
      for (size_t g = 0; g < groups; ++g) {
        PlaneBlock<kBits> gathered;
        const uint8_t* scale = reinterpret_cast<const uint8_t*>(gathered.scale);
        const uint32_t* planes = gathered.planes[0][0];
        if constexpr (kPacked) {
          scale = reinterpret_cast<const uint8_t*>(matrix.data) + (stripe * groups + g) * kGroupBytes;
          planes = reinterpret_cast<const uint32_t*>(scale + 2 * kStripeRows);
          if (first == 0) prefetch(scale + kPrefetchBytes, kGroupBytes);
        } else {
          const size_t row_bytes = groups * Bipolar<kBits>::kBytes;
          gather_planes<kBits>(PlainRows(matrix, stripe, row_bytes, 0), g, gathered);
        }
        const Isa::Floats weight_scale = Isa::load_halves(scale);
        for (size_t t = 0; t < n_tokens; ++t) {
          const uint32_t* x = job.planes.words + ((first + t) * groups + g) * bits * kPlaneWords;
          Isa::Ints differing = Isa::set_ints(0);
          for (size_t j = 0; j < bits; ++j, x += kPlaneWords) {
            for (size_t i = 0; i < kBits; ++i) {
              Isa::Counts counts = Isa::no_counts();
              MNEME_UNROLL for (size_t w = 0; w < kPlaneWords; ++w) {
                counts = Isa::count_differing(counts, planes + (i * kPlaneWords + w) * kStripeRows, x[w]);
              }
              differing = Isa::add_shifted(differing, counts, static_cast<int>(i + j));
            }
          }
          const Isa::Floats product =
              Isa::multiply_add(Isa::to_floats(differing), Isa::set_floats(-2.0f), Isa::set_floats(most));
          const Isa::Floats x_scale = Isa::set_floats(job.planes.scale[(first + t) * groups + g]);
          sums[t] = Isa::multiply_add(Isa::multiply(product, x_scale), weight_scale, sums[t]);
        }
      }
      for (size_t t = 0; t < n_tokens; ++t) {
        alignas(64) float values[kStripeRows];
        Isa::store_floats(values, sums[t]);
        float* y = job.y + (first + t) * job.y_stride + first_row;
        for (size_t r = 0; r < n_rows; ++r) y[r] = values[r] + (job.bias != nullptr ? job.bias[first_row + r] : 0.0f);
      }
    }
  }
}

template <bool kPacked, size_t... kBits>
constexpr auto plane_runs(std::index_sequence<kBits...>) {
  return std::array{&run_planes<static_cast<int>(kBits) + 1, kPacked>...};
}

/// The product of a bipolar type by planes.
inline ProductEntry plane_entry(DType dtype, Layout layout) {
  static constexpr auto kPlain = plane_runs<false>(std::make_index_sequence<8>());
  static constexpr auto kPacked = plane_runs<true>(std::make_index_sequence<8>());
  const size_t index = static_cast<uint32_t>(dtype) - static_cast<uint32_t>(DType::kBipolar1);
  return {layout == Layout::kBitPlanes ? kPacked[index] : kPlain[index], Currency::kPlanes};
}

}  // namespace mneme::kernels::products::MNEME_TARGET
