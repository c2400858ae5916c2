#include "kernels/vector_ops.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "kernels/op_check.h"

namespace mneme::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kSizes[] = {0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 100, 1000};

using Floats = std::vector<float>;

Floats random_floats(size_t n, uint64_t seed, float spread = 1.0f) {
  PhiloxStream random(seed);
  Floats x(n);
  for (float& v : x) v = spread * random.next_normal();
  return x;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double silu(double x) {
  return x * sigmoid(x);
}
/// Twice the argument of the tanh of gelu; its rounding is what bounds the relative error.
double gelu_argument(double x) {
  return 2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
}
double gelu(double x) {
  return x * sigmoid(gelu_argument(x));
}
double silu_error(double x) {
  return 6e-7 * std::abs(silu(x)) + std::abs(x) * kSmallestNormal;
}
double gelu_error(double x) {
  return (6e-7 + 4 * kUnitRoundoff * std::abs(gelu_argument(x))) * std::abs(gelu(x)) + std::abs(x) * kSmallestNormal;
}

/// Relative error of a sum of n terms of one sign: every target has at least four chains.
double sum_error(size_t n) {
  return (static_cast<double>(n) / 4 + 8) * kUnitRoundoff;
}

/// Runs `check` for every size and target.
void for_each_size(const std::function<void(size_t n)>& check) {
  on_every_target([&] {
    for (size_t n : kSizes) {
      SCOPED_TRACE("n = " + std::to_string(n));
      check(n);
    }
  });
}

/// An operation y = op(a, b): the kernel call and what element i should be.
struct MapCase {
  const char* name;
  float spread;
  void (*run)(const VectorOps& ops, const float* a, const float* b, size_t n, float* y);
  Expected (*expected)(double a, double b);
};

Expected rounded(double value) {
  return {value, kUnitRoundoff * std::abs(value) + kSmallestNormal};
}

constexpr float kFactor = 0.7f;
constexpr float kCap = 30.0f;

const MapCase kMapCases[] = {
    {"add", 1, [](const VectorOps& o, const float* a, const float* b, size_t n, float* y) { o.add(a, b, n, y); },
     [](double a, double b) { return rounded(a + b); }},
    {"multiply", 1,
     [](const VectorOps& o, const float* a, const float* b, size_t n, float* y) { o.multiply(a, b, n, y); },
     [](double a, double b) { return rounded(a * b); }},
    {"scale", 1, [](const VectorOps& o, const float* a, const float*, size_t n, float* y) { o.scale(a, kFactor, n, y); },
     [](double a, double) { return rounded(kFactor * a); }},
    {"silu_multiply", 8,
     [](const VectorOps& o, const float* a, const float* b, size_t n, float* y) { o.silu_multiply(a, b, n, y); },
     [](double a, double b) {
       return Expected{silu(a) * b, (silu_error(a) + kUnitRoundoff * std::abs(silu(a))) * std::abs(b)};
     }},
    {"gelu_multiply", 3,
     [](const VectorOps& o, const float* a, const float* b, size_t n, float* y) { o.gelu_multiply(a, b, n, y); },
     [](double a, double b) {
       return Expected{gelu(a) * b, (gelu_error(a) + kUnitRoundoff * std::abs(gelu(a))) * std::abs(b)};
     }},
    {"relu_multiply", 1,
     [](const VectorOps& o, const float* a, const float* b, size_t n, float* y) { o.relu_multiply(a, b, n, y); },
     [](double a, double b) { return rounded(std::max(a, 0.0) * b); }},
    {"gelu", 3, [](const VectorOps& o, const float* a, const float*, size_t n, float* y) { o.gelu(a, n, y); },
     [](double a, double) { return Expected{gelu(a), gelu_error(a)}; }},
    {"softcap", 40, [](const VectorOps& o, const float* a, const float*, size_t n, float* y) { o.softcap(a, kCap, n, y); },
     [](double a, double) {
       const double value = kCap * std::tanh(a / kCap);
       return Expected{value, 7e-7 * std::abs(value)};
     }},
};

TEST(VectorOps, ElementwiseOpsAgreeWithDouble) {
  for_each_size([](size_t n) {
    const Floats b = random_floats(n, 2);
    for (const MapCase& op : kMapCases) {
      SCOPED_TRACE(op.name);
      const Floats a = random_floats(n, 1, op.spread);
      Floats y(n);
      op.run(vector_ops(), a.data(), b.data(), n, y.data());
      EXPECT_TRUE(close_to(y, [&](size_t i) { return op.expected(a[i], b[i]); }));
    }
  });
}

TEST(VectorOps, OutputMayBeTheInput) {
  for_each_size([](size_t n) {
    const Floats b = random_floats(n, 2);
    for (const MapCase& op : kMapCases) {
      SCOPED_TRACE(op.name);
      const Floats a = random_floats(n, 1, op.spread);
      Floats apart(n), in_place = a;
      op.run(vector_ops(), a.data(), b.data(), n, apart.data());
      op.run(vector_ops(), in_place.data(), b.data(), n, in_place.data());
      EXPECT_EQ(apart, in_place);
    }
    Floats apart(n), in_place = b;
    vector_ops().softmax(b.data(), n, apart.data());
    vector_ops().softmax(in_place.data(), n, in_place.data());
    EXPECT_EQ(apart, in_place);
    in_place = b;
    vector_ops().rms_norm(b.data(), b.data(), 1e-5f, n, apart.data());
    vector_ops().rms_norm(in_place.data(), b.data(), 1e-5f, n, in_place.data());
    EXPECT_EQ(apart, in_place);
    in_place = b;
    vector_ops().layer_norm(b.data(), b.data(), b.data(), 1e-5f, n, apart.data());
    vector_ops().layer_norm(in_place.data(), b.data(), b.data(), 1e-5f, n, in_place.data());
    EXPECT_EQ(apart, in_place);
  });
}

TEST(VectorOps, AddScaledAgreesWithDouble) {
  for_each_size([](size_t n) {
    const Floats x = random_floats(n, 3), before = random_floats(n, 4);
    Floats y = before;
    vector_ops().add_scaled(x.data(), kFactor, n, y.data());
    EXPECT_TRUE(close_to(y, [&](size_t i) {
      const double product = static_cast<double>(kFactor) * x[i];
      return Expected{before[i] + product, 2 * kUnitRoundoff * (std::abs(product) + std::abs(before[i] + product))};
    }));
  });
}

TEST(VectorOps, DotAgreesWithDouble) {
  for_each_size([](size_t n) {
    const Floats a = random_floats(n, 5), b = random_floats(n, 6);
    double sum = 0, size = 0;
    for (size_t i = 0; i < n; ++i) {
      sum += static_cast<double>(a[i]) * b[i];
      size += std::abs(static_cast<double>(a[i]) * b[i]);
    }
    const float got = vector_ops().dot(a.data(), b.data(), n);
    EXPECT_TRUE(close_to({&got, 1}, [&](size_t) { return Expected{sum, sum_error(n) * size}; }));
  });
}

TEST(VectorOps, RmsNormAgreesWithDouble) {
  for_each_size([](size_t n) {
    const Floats x = random_floats(n, 7, 5.0f), weight = random_floats(n, 8);
    constexpr float kEps = 1e-5f;
    double squares = 0;
    for (float v : x) squares += static_cast<double>(v) * v;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + kEps);
    Floats y(n);
    vector_ops().rms_norm(x.data(), weight.data(), kEps, n, y.data());
    EXPECT_TRUE(close_to(y, [&](size_t i) {
      const double value = x[i] * factor * weight[i];
      return Expected{value, (sum_error(n) / 2 + 5 * kUnitRoundoff) * std::abs(value)};
    }));
  });
}

TEST(VectorOps, LayerNormAgreesWithDouble) {
  for_each_size([](size_t n) {
    // The mean is far from zero, so a one-pass variance would fail.
    Floats x = random_floats(n, 9, 2.0f);
    for (float& v : x) v += 50.0f;
    const Floats weight = random_floats(n, 10), bias = random_floats(n, 11);
    constexpr float kEps = 1e-5f;
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(n);
    double squares = 0;
    for (float v : x) squares += (v - mean) * (v - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(n) + kEps);
    const double mean_error = sum_error(n) * std::abs(mean);
    for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
      Floats y(n);
      vector_ops().layer_norm(x.data(), weight.data(), b, kEps, n, y.data());
      EXPECT_TRUE(close_to(y, [&](size_t i) {
        const double centred = (x[i] - mean) / deviation, scaled = centred * weight[i];
        // A wrong mean shifts the numerator and, by its relative size, the deviation.
        const double shift = mean_error / deviation * (1 + std::abs(centred)) * std::abs(weight[i]);
        const double value = scaled + (b != nullptr ? b[i] : 0);
        return Expected{value, shift + sum_error(n) * std::abs(scaled) + kUnitRoundoff * std::abs(value)};
      }));
    }
  });
}

TEST(VectorOps, SoftmaxAgreesWithDouble) {
  for_each_size([](size_t n) {
    const Floats x = random_floats(n, 12, 20.0f);
    double max = -INFINITY, sum = 0;
    for (float v : x) max = std::max<double>(max, v);
    for (float v : x) sum += std::exp(v - max);
    Floats y(n);
    vector_ops().softmax(x.data(), n, y.data());
    EXPECT_TRUE(close_to(y, [&](size_t i) {
      const double value = std::exp(x[i] - max) / sum;
      const double relative = kUnitRoundoff * std::abs(x[i] - max) + 3e-7 + sum_error(n);
      return Expected{value, relative * value + kSmallestNormal};
    }));
  });
}

TEST(VectorOps, SoftmaxOfInfinitiesAndNan) {
  for_each_size([](size_t n) {
    if (n == 0) return;
    Floats x(n, -kInf), y(n, 7.0f);
    vector_ops().softmax(x.data(), n, y.data());
    EXPECT_EQ(y, Floats(n, 0.0f));
    for (size_t at : {size_t{0}, n / 2, n - 1}) {
      Floats one(n, 0.0f);
      one[at] = 1.0f;
      x.assign(n, -kInf);
      x[at] = 3.0f;
      vector_ops().softmax(x.data(), n, y.data());
      EXPECT_EQ(y, one);
      for (float bad : {kNan, kInf}) {
        x.assign(n, 1.0f);
        x[at] = bad;
        vector_ops().softmax(x.data(), n, y.data());
        for (float v : y) EXPECT_TRUE(std::isnan(v)) << bad << " at " << at;
      }
    }
  });
}

TEST(VectorOps, RotationsAgreeWithDouble) {
  for_each_size([](size_t n_pairs) {
    const Floats before = random_floats(2 * n_pairs, 13), angles = random_floats(n_pairs, 14, 3.0f);
    Floats cosines(n_pairs), sines(n_pairs);
    for (size_t i = 0; i < n_pairs; ++i) {
      cosines[i] = std::cos(angles[i]);
      sines[i] = std::sin(angles[i]);
    }
    const auto expected = [&](size_t a, size_t b, size_t pair, bool first) {
      const double u = before[a], v = before[b], c = cosines[pair], s = sines[pair];
      const double bound = 2 * kUnitRoundoff * (std::abs(u) + std::abs(v));
      return Expected{first ? u * c - v * s : u * s + v * c, bound};
    };
    Floats x = before;
    vector_ops().rope_halves(x.data(), cosines.data(), sines.data(), n_pairs);
    EXPECT_TRUE(close_to(x, [&](size_t i) {
      const size_t pair = i % n_pairs;
      return expected(pair, pair + n_pairs, pair, i < n_pairs);
    }));
    x = before;
    vector_ops().rope_interleaved(x.data(), cosines.data(), sines.data(), n_pairs);
    EXPECT_TRUE(close_to(x, [&](size_t i) { return expected(i & ~size_t{1}, i | 1, i / 2, i % 2 == 0); }));
  });
}

TEST(VectorOps, ActivationsKeepTheirBoundOverTheWholeRange) {
  on_every_target([] {
    Floats x, ones;
    for (float v = 1e-30f; v < 120.0f; v *= 1.001f) {
      x.push_back(v);
      x.push_back(-v);
    }
    x.push_back(0.0f);
    ones.assign(x.size(), 1.0f);
    Floats y(x.size());
    vector_ops().silu_multiply(x.data(), ones.data(), x.size(), y.data());
    EXPECT_TRUE(close_to(y, [&](size_t i) { return Expected{silu(x[i]), silu_error(x[i])}; }));
    vector_ops().gelu(x.data(), x.size(), y.data());
    EXPECT_TRUE(close_to(y, [&](size_t i) { return Expected{gelu(x[i]), gelu_error(x[i])}; }));
    vector_ops().softcap(x.data(), 1.0f, x.size(), y.data());
    EXPECT_TRUE(close_to(y, [&](size_t i) {
      const double value = std::tanh(static_cast<double>(x[i]));
      return Expected{value, 6e-7 * std::abs(value)};
    }));
    // softmax of (0, x) is the logistic function of x: exp of negative numbers down to where it vanishes.
    for (float v : x) {
      if (v > 0) continue;
      const Floats pair = {0.0f, v};
      Floats weights(2);
      vector_ops().softmax(pair.data(), 2, weights.data());
      EXPECT_TRUE(close_to(weights, [&](size_t i) {
        const double value = i == 0 ? sigmoid(-static_cast<double>(v)) : sigmoid(v);
        return Expected{value, 6e-7 * value + kSmallestNormal};
      })) << v;
    }
  });
}

TEST(VectorOps, ActivationsOfInfinitiesAndNan) {
  on_every_target([] {
    const Floats x = {kInf, kNan, -200.0f, 200.0f, 0.0f, kNan}, ones(x.size(), 1.0f);
    Floats y(x.size());
    const auto check = [&](const char* name, std::vector<double> want) {
      SCOPED_TRACE(name);
      EXPECT_TRUE(close_to(y, [&](size_t i) { return Expected{want[i], 1e-30}; }));
    };
    vector_ops().silu_multiply(x.data(), ones.data(), x.size(), y.data());
    check("silu", {INFINITY, NAN, 0, 200, 0, NAN});
    vector_ops().gelu(x.data(), x.size(), y.data());
    check("gelu", {INFINITY, NAN, 0, 200, 0, NAN});
    vector_ops().relu_multiply(x.data(), ones.data(), x.size(), y.data());
    check("relu", {INFINITY, NAN, 0, 200, 0, NAN});
    vector_ops().softcap(x.data(), 5.0f, x.size(), y.data());
    check("softcap", {5, NAN, -5, 5, 0, NAN});
    const Floats minus(x.size(), -kInf);
    vector_ops().softcap(minus.data(), 5.0f, x.size(), y.data());
    check("softcap of -inf", std::vector<double>(x.size(), -5));
  });
}

TEST(VectorOps, EveryHalfConvertsBitForBit) {
  on_every_target([] {
    std::vector<uint16_t> halves(65536);
    std::iota(halves.begin(), halves.end(), uint16_t{0});
    Floats y(halves.size());
    vector_ops().f16_to_f32(halves.data(), halves.size(), y.data());
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(y[i]), std::bit_cast<uint32_t>(f16_to_f32(halves[i]))) << "f16 " << i;
    }
    vector_ops().bf16_to_f32(halves.data(), halves.size(), y.data());
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(y[i]), std::bit_cast<uint32_t>(bf16_to_f32(halves[i]))) << "bf16 " << i;
    }
  });
}

TEST(VectorOps, FloatsRoundToHalvesBitForBit) {
  // Every f16 and bf16 value, the middle of its neighbours and the floats around that, and random bit patterns.
  Floats x;
  for (uint32_t i = 0; i < 65536; ++i) {
    const uint32_t half = std::bit_cast<uint32_t>(f16_to_f32(static_cast<uint16_t>(i)));
    for (uint32_t base : {half, half + 0x1000, i << 16, (i << 16) + 0x8000}) {
      for (uint32_t offset : {0u, 1u, 0xFFFFFFFFu}) x.push_back(std::bit_cast<float>(base + offset));
    }
  }
  PhiloxStream random(15);
  for (size_t i = 0; i < 200000; ++i) x.push_back(std::bit_cast<float>(random.next_u32()));
  x.push_back(1.0f);  // an odd count: the last one goes through the tail
  on_every_target([&] {
    std::vector<uint16_t> y(x.size());
    vector_ops().f32_to_f16(x.data(), x.size(), y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], f32_to_f16(x[i])) << "f16 of " << std::hex << std::bit_cast<uint32_t>(x[i]);
    }
    vector_ops().f32_to_bf16(x.data(), x.size(), y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], f32_to_bf16(x[i])) << "bf16 of " << std::hex << std::bit_cast<uint32_t>(x[i]);
    }
  });
}

TEST(VectorOps, HalfConversionsOfEverySizeTouchOnlyTheirBytes) {
  for_each_size([](size_t n) {
    const Floats x = random_floats(n, 16);
    std::vector<std::byte> bytes(2 * n + 3, std::byte{0xAB});  // at an odd address, with a guard behind
    using ToHalf = void (*)(const float*, size_t, void*);
    using FromHalf = void (*)(const void*, size_t, float*);
    const VectorOps& ops = vector_ops();
    const std::pair<ToHalf, FromHalf> kinds[] = {{ops.f32_to_f16, ops.f16_to_f32}, {ops.f32_to_bf16, ops.bf16_to_f32}};
    const double errors[] = {0x1p-11, 0x1p-8};
    for (size_t kind = 0; kind < 2; ++kind) {
      Floats back(n);
      kinds[kind].first(x.data(), n, bytes.data() + 1);
      kinds[kind].second(bytes.data() + 1, n, back.data());
      EXPECT_TRUE(close_to(back, [&](size_t i) {
        return Expected{x[i], errors[kind] * std::abs(x[i]) + 0x1p-25};
      }));
      EXPECT_EQ(bytes.front(), std::byte{0xAB});
      EXPECT_EQ(bytes[2 * n + 1], std::byte{0xAB});
    }
  });
}

TEST(VectorOps, TheTableFollowsTheTarget) {
  on_every_target([] { EXPECT_EQ(vector_ops().target, target_name(active_target())); });
}

}  // namespace
}  // namespace mneme::kernels
