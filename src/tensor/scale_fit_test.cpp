#include "tensor/scale_fit.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/philox.h"
#include "tensor/k_scales.h"

namespace mneme::codecs {
namespace {

TEST(ScaleFit, PackedScalesComeBack) {
  PhiloxStream random(1);
  for (int round = 0; round < 100; ++round) {
    int scales[16], minima[8], read_scales[16], read_minima[8];
    for (int& s : scales) s = static_cast<int>(random.next_below(64));
    for (int& m : minima) m = static_cast<int>(random.next_below(64));
    std::byte packed[12];
    pack_q4_scales(scales, minima, packed);
    unpack_q4_scales(packed, read_scales, read_minima);
    for (size_t k = 0; k < 8; ++k) {
      EXPECT_EQ(read_scales[k], scales[k]);
      EXPECT_EQ(read_minima[k], minima[k]);
    }
    for (int& s : scales) s -= 32;
    pack_q3_scales(scales, packed);
    unpack_q3_scales(packed, read_scales);
    for (size_t k = 0; k < 16; ++k) EXPECT_EQ(read_scales[k], scales[k]);
  }
}

TEST(ScaleFit, FindsTheGridThatMadeTheData) {
  PhiloxStream random(2);
  for (int round = 0; round < 50; ++round) {
    std::array<float, 32> x, weights;
    const float scale = 0.01f + random.next_float(), minimum = 3.0f * random.next_float();
    for (size_t i = 0; i < x.size(); ++i) {
      // Both ends of the range occur, so that the grid is the only one that fits.
      const auto code = static_cast<float>(i < 2 ? 15 * i : random.next_below(16));
      x[i] = scale * code - minimum;
      weights[i] = 0.5f + random.next_float();
    }
    const bool below_zero = minimum > 0.0f;
    const AffineFit fit = fit_affine<32>(x.data(), weights.data(), 15, !below_zero);
    // Sums of 32 floats: relative error of about 32 * 2^-24 in a difference of numbers of the size of the range.
    EXPECT_NEAR(fit.scale, scale, 1e-4f * scale);
    EXPECT_NEAR(fit.minimum, minimum, 1e-4f * (16.0f * scale + minimum));
  }
}

TEST(ScaleFit, SymmetricScaleTakesEitherSign) {
  std::array<float, 16> weights;
  weights.fill(1.0f);
  for (float sign : {1.0f, -1.0f}) {
    std::array<float, 16> x;
    for (size_t i = 0; i < x.size(); ++i) x[i] = sign * 0.25f * static_cast<float>(static_cast<int>(i % 8) - 4);
    EXPECT_NEAR(fit_symmetric<16>(x.data(), weights.data(), -4, 3), sign * 0.25f, 1e-6f);
  }
}

TEST(ScaleFit, ConstantBlocks) {
  std::array<float, 16> weights, x;
  weights.fill(1.0f);
  x.fill(-2.0f);
  const AffineFit below = fit_affine<16>(x.data(), weights.data(), 3, false);
  EXPECT_NEAR(below.minimum - 0.0f * below.scale, 2.0f, 1e-5f);
  x.fill(3.0f);
  const AffineFit above = fit_affine<16>(x.data(), weights.data(), 3, false);
  EXPECT_EQ(above.minimum, 0.0f);
  const float code = 3.0f / above.scale;
  EXPECT_NEAR(code, std::round(code), 1e-5f);
  EXPECT_LE(code, 3.001f);
}

TEST(ScaleFit, WeightsAreNeverAllZero) {
  std::array<float, 32> zeros{}, weights;
  error_weights(zeros.data(), nullptr, 32, weights.data());
  for (float w : weights) EXPECT_GT(w, 0.0f);
  error_weights(zeros.data(), zeros.data(), 32, weights.data());
  for (float w : weights) EXPECT_GT(w, 0.0f);
}

}  // namespace
}  // namespace mneme::codecs
