#include "kernels/vector_distance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "kernels/op_check.h"

namespace mneme::kernels {
namespace {

constexpr size_t kSizes[] = {0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 100, 128, 1000};

TEST(VectorDistance, EveryTypeAgreesWithDouble) {
  on_every_target([] {
    for (size_t n : kSizes) {
      SCOPED_TRACE("n = " + std::to_string(n));
      PhiloxStream random(n + 1);
      std::vector<float> a(n), b(n), a_half(n), b_half(n), b_bytes(n);
      std::vector<uint16_t> a_f16(n), b_f16(n);
      std::vector<int8_t> codes(n);
      const float scale = 0.03f;
      for (size_t i = 0; i < n; ++i) {
        a[i] = random.next_normal();
        b[i] = random.next_normal();
        a_half[i] = f16_to_f32(a_f16[i] = f32_to_f16(a[i]));
        b_half[i] = f16_to_f32(b_f16[i] = f32_to_f16(b[i]));
        codes[i] = static_cast<int8_t>(static_cast<int>(random.next_below(255)) - 127);
        b_bytes[i] = scale * codes[i];
      }
      const auto check = [&](const char* name, float got, const std::vector<float>& x, const std::vector<float>& y) {
        SCOPED_TRACE(name);
        double sum = 0, error = 0;
        for (size_t i = 0; i < n; ++i) {
          const double gap = static_cast<double>(x[i]) - y[i];
          sum += gap * gap;
          error += 4 * std::abs(gap) * (std::abs(x[i]) + std::abs(y[i]));  // rounding of the difference and the scale
        }
        const double bound = kUnitRoundoff * (error + (static_cast<double>(n) / 4 + 8) * sum) + kSmallestNormal;
        EXPECT_TRUE(close_to({&got, 1}, [&](size_t) { return Expected{sum, bound}; }));
      };
      const DistanceOps& ops = distance_ops();
      check("f32", ops.l2_f32(a.data(), b.data(), n), a, b);
      check("f16", ops.l2_f16(a.data(), b_f16.data(), n), a, b_half);
      check("f16 f16", ops.l2_f16_f16(a_f16.data(), b_f16.data(), n), a_half, b_half);
      check("i8", ops.l2_i8(a.data(), codes.data(), scale, n), a, b_bytes);
    }
  });
}

TEST(VectorDistance, NanComesThrough) {
  on_every_target([] {
    std::vector<float> a(19, 1.0f), b(19, 2.0f);
    a[18] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(distance_ops().l2_f32(a.data(), b.data(), a.size())));
    EXPECT_EQ(distance_ops().target, target_name(active_target()));
  });
}

}  // namespace
}  // namespace mneme::kernels
