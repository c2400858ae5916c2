#include "kernels/coded_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/philox.h"
#include "base/test_error.h"
#include "kernels/cpu.h"

namespace mneme::kernels {
namespace {

using Groups = CodedFormat::Groups;
using Scales = CodedFormat::Scales;

std::vector<CodedFormat> all_formats() {
  std::vector<CodedFormat> formats;
  for (const uint8_t bits : {2, 3, 4, 8}) {
    for (const Groups groups : {Groups::kAlongLanes, Groups::kAlongDepth}) {
      for (const Scales scales : {Scales::kFloat16, Scales::kExponent}) {
        for (const uint32_t group : {32u, 64u}) formats.push_back({bits, groups, scales, group});
      }
    }
  }
  return formats;
}

std::string name_of(const CodedFormat& f) {
  return std::to_string(f.bits) + (f.groups == Groups::kAlongLanes ? " along lanes " : " along depth ") +
         (f.scales == Scales::kFloat16 ? "affine " : "bfp ") + std::to_string(f.group);
}

std::vector<float> normals(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> values(n);
  for (float& x : values) x = random.next_normal();
  return values;
}

/// A matrix with its values, its codes in exactly as many bytes as it says, and what they decode to, row-major.
struct Sample {
  CodedMatrix matrix;
  std::vector<float> values, decoded;
  std::vector<std::byte> coded;

  Sample(const CodedFormat& format, size_t n_lanes, size_t depth, uint64_t seed = 3)
      : matrix(format, n_lanes, depth), values(normals(n_lanes * depth, seed)), decoded(values.size()), coded(matrix.bytes()) {
    encode();
  }
  void encode() {
    matrix.encode({values.data(), matrix.depth(), 1}, matrix.whole(), coded.data());
    matrix.decode(coded.data(), matrix.whole(), {decoded.data(), matrix.depth(), 1});
  }
};

// The bound is recomputed from the group's values, not from what the codec stored: half a step of the ideal grid, plus what
// rounding scale and minimum to f16 can move a code's value.
TEST(CodedMatrix, ValuesComeBackWithinHalfAStep) {
  for (const CodedFormat& format : all_formats()) {
    SCOPED_TRACE(name_of(format));
    const Sample s(format, 64, 80);
    const bool lanes = format.groups == Groups::kAlongLanes;
    for (size_t lane = 0; lane < 64; ++lane) {
      for (size_t i = 0; i < 80; ++i) {
        const size_t begin = (lanes ? lane : i) / format.group * format.group;
        const size_t end = std::min<size_t>(begin + format.group, lanes ? 64 : 80);
        float min = 1e9f, max = -1e9f;
        for (size_t k = begin; k < end; ++k) {
          const float x = s.values[(lanes ? k : lane) * 80 + (lanes ? i : k)];
          min = std::min(min, x);
          max = std::max(max, x);
        }
        const float largest = std::max(std::abs(min), std::abs(max));
        const float levels = static_cast<float>((1 << format.bits) - 1);
        const float step = format.scales == Scales::kFloat16
                               ? (max - min) / levels
                               : 2 * largest / static_cast<float>((1 << (format.bits - 1)) - 1);  // less than twice the ideal
        const float rounding = format.scales == Scales::kFloat16 ? largest * 3 / 2048 : 0;
        ASSERT_NEAR(s.decoded[lane * 80 + i], s.values[lane * 80 + i], step / 2 + rounding) << lane << ' ' << i;
      }
    }
  }
}

TEST(CodedMatrix, BytesFollowTheFormula) {
  // Per value bits / 8, per group 4 bytes (affine) or 1 (block floating point), lanes in sixteens, depth in whole vectors.
  EXPECT_EQ(CodedMatrix({2, Groups::kAlongLanes, Scales::kFloat16, 32}, 64, 128).bytes(), 64u * 128 / 4 + 2 * 128 * 4);
  EXPECT_EQ(CodedMatrix({4, Groups::kAlongLanes, Scales::kFloat16, 64}, 64, 128).bytes(), 64u * 128 / 2 + 128 * 4);
  EXPECT_EQ(CodedMatrix({3, Groups::kAlongDepth, Scales::kFloat16, 64}, 64, 128).bytes(), 64u * 128 * 3 / 8 + 2 * 64 * 4);
  EXPECT_EQ(CodedMatrix({4, Groups::kAlongDepth, Scales::kExponent, 32}, 64, 128).bytes(), 64u * 128 / 2 + 4 * 64);
  EXPECT_EQ(CodedMatrix({2, Groups::kAlongLanes, Scales::kFloat16, 32}, 20, 64).bytes(), 32u * 64 / 4 + 64 * 4);
}

TEST(CodedMatrix, ConstantGroupsAreExactAndExtremesSurvive) {
  for (const CodedFormat& format : all_formats()) {
    if (format.scales == Scales::kExponent) continue;
    SCOPED_TRACE(name_of(format));
    Sample s(format, 64, 64);
    std::fill(s.values.begin(), s.values.end(), 0.375f);
    s.encode();
    EXPECT_EQ(s.decoded, s.values);
    std::fill(s.values.begin(), s.values.end(), 1e6f);  // beyond f16: clamped, not infinite
    s.encode();
    EXPECT_NEAR(s.decoded[5], 65504, 64);
  }
}

TEST(CodedMatrix, BlockFloatingPointKeepsSmallIntegers) {
  for (const uint8_t bits : {3, 4, 8}) {
    Sample s({bits, Groups::kAlongDepth, Scales::kExponent, 32}, 64, 64);
    const int largest = (1 << (bits - 1)) - 1;
    for (size_t i = 0; i < s.values.size(); ++i) {
      s.values[i] = static_cast<float>(static_cast<int>(i % static_cast<size_t>(2 * largest + 1)) - largest) * 0.25f;
    }
    s.encode();
    EXPECT_EQ(s.decoded, s.values) << int{bits};
  }
}

TEST(CodedMatrix, NotANumberSpoilsItsGroupAlone) {
  for (const CodedFormat& format : all_formats()) {
    SCOPED_TRACE(name_of(format));
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Sample s(format, 64, 64);
      s.values[40 * 64 + 40] = bad;
      s.encode();
      const bool lanes = format.groups == Groups::kAlongLanes;
      for (size_t lane = 0; lane < 64; ++lane) {
        for (size_t i = 0; i < 64; ++i) {
          const bool same = lanes ? i == 40 && lane / format.group == 40 / format.group
                                  : lane == 40 && i / format.group == 40 / format.group;
          EXPECT_EQ(std::isnan(s.decoded[lane * 64 + i]), same) << lane << ' ' << i;
        }
      }
    }
  }
}

TEST(CodedMatrix, PartsAreEncodedInAnyOrder) {
  for (const CodedFormat& format : all_formats()) {
    SCOPED_TRACE(name_of(format));
    Sample s(format, 64, 64);
    std::vector<std::byte> parts(s.coded.size());
    // One token after the other: a lane of keys or a column of values.
    for (size_t t = 64; t-- > 0;) {
      const bool lanes = format.groups == Groups::kAlongLanes;
      const CodedMatrix::Part part = lanes ? CodedMatrix::Part{0, 64, t, t + 1} : CodedMatrix::Part{t, t + 1, 0, 64};
      s.matrix.encode({s.values.data() + (lanes ? t : t * 64), 64, 1}, part, parts.data());
    }
    EXPECT_EQ(parts, s.coded);
  }
}

TEST(CodedMatrix, ProductsMatchTheDecodedMatrix) {
  const Target before = active_target();
  for (const auto& [n_lanes, depth] : {std::pair<size_t, size_t>{64, 64}, {64, 80}, {64, 256}, {24, 64}, {100, 64}, {7, 20}}) {
    for (const CodedFormat& format : all_formats()) {
      SCOPED_TRACE(name_of(format) + ", " + std::to_string(n_lanes) + " x " + std::to_string(depth));
      const Sample s(format, n_lanes, depth);
      const size_t n_rows = 11, stride = depth + 3;
      const std::vector<float> x = normals(n_rows * stride, 9);
      std::vector<float> first;
      for (const Target target : available_targets()) {
        set_active_target(target);
        std::vector<float> y(n_rows * n_lanes, 0.5f);
        s.matrix.multiply(s.coded.data(), x.data(), stride, n_rows, y.data(), n_lanes);
        // Rounding x to integers of 15 bits moves a product by at most |x| * range / 2^15, in a random direction; twice its
        // deviation.
        const auto [low, high] = std::minmax_element(s.decoded.begin(), s.decoded.end());
        for (size_t r = 0; r < n_rows; ++r) {
          float largest = 0;
          for (size_t i = 0; i < depth; ++i) largest = std::max(largest, std::abs(x[r * stride + i]));
          const double tolerance = std::sqrt(static_cast<double>(depth)) * largest * (*high - *low) / 16384 + 1e-5;
          for (size_t lane = 0; lane < n_lanes; ++lane) {
            double want = 0.5;
            for (size_t i = 0; i < depth; ++i) want += static_cast<double>(s.decoded[lane * depth + i]) * x[r * stride + i];
            ASSERT_NEAR(y[r * n_lanes + lane], want, tolerance) << r << ' ' << lane;
          }
        }
        // The integers are the same everywhere; only what is done in floats may round differently.
        if (first.empty()) first = y;
        for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], first[i], 2e-5);
        std::vector<float> alone(n_lanes, 0.5f);
        s.matrix.multiply(s.coded.data(), x.data() + 6 * stride, stride, 1, alone.data(), n_lanes);
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), y.begin() + static_cast<long>(6 * n_lanes)));
      }
    }
  }
  set_active_target(before);
}

TEST(CodedMatrix, ManyProductsEqualThoseAlone) {
  const Target before = active_target();
  for (const auto& [n_lanes, depth] : {std::pair<size_t, size_t>{64, 64}, {64, 80}, {128, 64}, {576, 64}, {7, 20}}) {
    for (const CodedFormat& format : all_formats()) {
      SCOPED_TRACE(name_of(format) + ", " + std::to_string(n_lanes) + " x " + std::to_string(depth));
      std::vector<Sample> samples;
      for (uint64_t seed = 0; seed < 6; ++seed) samples.emplace_back(format, n_lanes, depth, seed);
      const size_t n_rows = 7;
      const std::vector<float> x = normals(2 * n_rows * depth, 4);
      for (const Target target : available_targets()) {
        set_active_target(target);
        // Two share x, as keys do; the last three share y, as values do.
        std::vector<float> want(6 * n_rows * n_lanes, 0.25f), got = want;
        std::vector<CodedMatrix::Product> products;
        for (size_t i = 0; i < samples.size(); ++i) {
          const float* const row = x.data() + (i < 2 ? 0 : i % 2 * n_rows * depth);
          const size_t to = std::min<size_t>(i, 3) * n_rows * n_lanes;
          samples[i].matrix.multiply(samples[i].coded.data(), row, depth, n_rows, want.data() + to, n_lanes);
          products.push_back({samples[i].coded.data(), row, got.data() + to});
        }
        samples[0].matrix.multiply(products, depth, n_rows, n_lanes);
        ASSERT_EQ(got, want);
      }
    }
  }
  set_active_target(before);
}

TEST(CodedMatrix, ZeroAndTinyRowsAddWhatTheyShould) {
  const Target before = active_target();
  for (const CodedFormat& format : all_formats()) {
    SCOPED_TRACE(name_of(format));
    const Sample s(format, 64, 64);
    std::vector<float> x(2 * 64, 0.0f);
    x[64 + 9] = 1e-38f;
    x[64 + 50] = -3e-39f;
    for (const Target target : available_targets()) {
      set_active_target(target);
      std::vector<float> y(2 * 64, 1.5f);
      s.matrix.multiply(s.coded.data(), x.data(), 64, 2, y.data(), 64);
      EXPECT_EQ(y, std::vector<float>(2 * 64, 1.5f));
    }
  }
  set_active_target(before);
}

TEST(CodedMatrix, NotANumberInARowStaysInThatRow) {
  const Sample s({2, Groups::kAlongLanes, Scales::kFloat16, 32}, 64, 64);
  std::vector<float> x = normals(3 * 64, 5), y(3 * 64, 0.0f);
  x[64 + 7] = std::numeric_limits<float>::quiet_NaN();
  s.matrix.multiply(s.coded.data(), x.data(), 64, 3, y.data(), 64);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 64 == 1) << i;
}

TEST(CodedMatrix, RefusesFormatsThatDoNotExist) {
  EXPECT_THROW(CodedMatrix({5, Groups::kAlongLanes, Scales::kFloat16, 32}, 64, 64), Error);
  EXPECT_THROW(CodedMatrix({4, Groups::kAlongLanes, Scales::kFloat16, 48}, 64, 64), Error);
  EXPECT_THROW(CodedMatrix({4, Groups::kAlongLanes, Scales::kFloat16, 32}, 64, 1024), Error);
  EXPECT_THROW(CodedMatrix({4, Groups::kAlongLanes, Scales::kFloat16, 32}, 0, 64), Error);
}

}  // namespace
}  // namespace mneme::kernels
