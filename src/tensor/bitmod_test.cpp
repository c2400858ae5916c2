#include "tensor/bitmod.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "base/philox.h"
#include "tensor/dtype.h"

namespace mneme::bitmod {
namespace {

std::vector<float> round_trip(DType dtype, const std::vector<float>& w) {
  std::vector<std::byte> blocks(row_bytes(dtype, w.size()));
  std::vector<float> out(w.size());
  dtype_info(dtype).encode(w.data(), nullptr, blocks.data(), w.size());
  dtype_info(dtype).decode(blocks.data(), out.data(), out.size());
  return out;
}

TEST(BitMod, HeadKeepsSpecialAndScale) {
  for (Special special : kSpecials) {
    for (float scale : {1e-5f, 0.0123f, 1.0f, 9999.0f, 0.0f, 1e9f}) {
      const GroupHead head = unpack_head(pack_head(scale, special));
      EXPECT_EQ(head.special, special);
      const float wanted = std::clamp(scale, 1e-5f, 1e4f);
      EXPECT_NEAR(head.scale, wanted, wanted * (scale < 1e-4f ? 2e-2f : 1e-3f));
      EXPECT_EQ(pack_head(head.scale, special), pack_head(scale, special));
    }
  }
}

/// A weight half-way between two levels takes the lower one, for every border of every set.
TEST(BitMod, TiesTakeTheLowerLevel) {
  for (int bits : {3, 4}) {
    for (Special special : kSpecials) {
      const auto by_code = levels(bits, special);
      std::vector<int> sorted(by_code.begin(), by_code.begin() + (1 << bits));
      std::sort(sorted.begin(), sorted.end());
      const GroupHead head{0.5f, special};
      std::vector<float> w(kGroup, 0.0f);
      for (size_t i = 0; i + 1 < sorted.size(); ++i) {
        w[3 * i] = 0.25f * static_cast<float>(sorted[i] + sorted[i + 1]);
        w[3 * i + 1] = std::nextafter(w[3 * i], 100.0f);
      }
      std::vector<uint8_t> codes(kGroup);
      choose_codes(bits, head, w.data(), codes.data());
      for (size_t i = 0; i + 1 < sorted.size(); ++i) {
        EXPECT_EQ(by_code[codes[3 * i]], sorted[i]) << bits << " bits, border " << i;
        EXPECT_EQ(by_code[codes[3 * i + 1]], sorted[i + 1]) << bits << " bits, border " << i;
      }
    }
  }
}

TEST(BitMod, ValuesOnTheGridComeBack) {
  PhiloxStream random(3);
  for (int bits : {3, 4}) {
    for (Special special : kSpecials) {
      const auto by_code = levels(bits, special);
      std::vector<float> w(kGroup);
      for (float& v : w) v = 0.125f * by_code[random.next_below(1u << bits)];
      w[0] = 0.125f * static_cast<float>(special_level(bits, special));
      w[1] = bits == 3 ? 0.5f : 1.5f;  // the largest level of the base, so that the scale is found again
      EXPECT_EQ(round_trip(bits == 3 ? DType::kBitMod3 : DType::kBitMod4, w), w) << bits << " bits";
    }
  }
}

TEST(BitMod, OneOutlierOnOneSideMakesTheGroupAsymmetric) {
  PhiloxStream random(4);
  std::vector<float> w(kGroup);
  for (float& v : w) v = 0.2f * random.next_normal();
  for (float sign : {1.0f, -1.0f}) {
    w[7] = sign * 1.5f;
    EXPECT_EQ(fit_group(3, w.data(), nullptr).special, sign > 0 ? Special::kAsymmetryPlus : Special::kAsymmetryMinus);
  }
  EXPECT_EQ(round_trip(DType::kBitMod4, std::vector<float>(kGroup, 0.0f)), std::vector<float>(kGroup, 0.0f));
}

/// Relative squared errors of Gaussian and Student-t(5) weights, +-3 %: fixed numbers of an independent measurement.
TEST(BitMod, ErrorsAreThoseOfTheMethod) {
  PhiloxStream random(5);
  constexpr size_t kGroups = 2000;
  for (const bool heavy : {false, true}) {
    std::vector<float> w(kGroups * kGroup);
    for (float& v : w) {
      v = random.next_normal();
      if (heavy) {
        float chi = 0;
        for (int i = 0; i < 5; ++i) {
          const float n = random.next_normal();
          chi += n * n;
        }
        v /= std::sqrt(chi / 5);
      }
    }
    for (int bits : {3, 4}) {
      const auto error = [&](std::span<const Special> candidates) {
        double lost = 0, size = 0;
        for (size_t g = 0; g < kGroups; ++g) {
          lost += fit_group(bits, w.data() + g * kGroup, nullptr, candidates).error;
          for (size_t i = 0; i < kGroup; ++i)
            size += static_cast<double>(w[g * kGroup + i]) * static_cast<double>(w[g * kGroup + i]);
        }
        return lost / size;
      };
      const std::span all(kSpecials);
      const double er = bits == 3 ? (heavy ? .084 : .0471) : (heavy ? .0131 : .0099);
      const double ea = bits == 3 ? (heavy ? .0513 : .0387) : (heavy ? .0122 : .0115);
      const double both = bits == 3 ? (heavy ? .0513 : .0380) : (heavy ? .0112 : .0096);
      const double slack = heavy ? 0.09 : 0.03;  // the tail of the heavy one moves by more than that between samples
      EXPECT_NEAR(error(all.first(2)) / er, 1, slack) << bits << heavy;
      EXPECT_NEAR(error(all.last(2)) / ea, 1, slack) << bits << heavy;
      EXPECT_NEAR(error(all) / both, 1, slack) << bits << heavy;
    }
  }
}

TEST(BitMod, AllSetsAreUsed) {
  PhiloxStream random(6);
  std::vector<float> w(kGroup);
  for (int bits : {3, 4}) {
    std::map<Special, int> used;
    for (int g = 0; g < 2000; ++g) {
      for (float& v : w) v = random.next_normal();
      ++used[fit_group(bits, w.data(), nullptr).special];
    }
    EXPECT_EQ(used.size(), 4u);
    const int asymmetric = used[Special::kAsymmetryPlus] + used[Special::kAsymmetryMinus];
    EXPECT_TRUE(bits == 3 ? asymmetric > 1000 : asymmetric < 1000) << bits << ": " << asymmetric;
  }
}

TEST(BitMod, CyclesOfTheAccelerator) {
  EXPECT_EQ(bit_serial_cycles(3), 2);
  EXPECT_EQ(bit_serial_cycles(4), 2);
  EXPECT_EQ(bit_serial_cycles(6), 3);
  EXPECT_EQ(bit_serial_cycles(8), 4);
}

}  // namespace
}  // namespace mneme::bitmod
