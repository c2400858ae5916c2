#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/matmul_test_data.h"
#include "kernels/op_check.h"
#include "tensor/bipolar.h"

namespace mneme::kernels {
namespace {

DType bipolar_type(int bits) {
  return static_cast<DType>(static_cast<uint32_t>(DType::kBipolar1) + static_cast<uint32_t>(bits) - 1);
}

/// Random codes with scales of one.
TestMatrix unit_matrix(int bits, size_t rows, size_t columns, uint64_t seed) {
  TestMatrix w(bipolar_type(bits), rows, columns, seed);
  constexpr uint16_t kOne = 0x3c00;
  for (size_t block = 0; block < w.bytes.size(); block += dtype_info(w.type).block_bytes) {
    std::memcpy(w.bytes.data() + block, &kOne, sizeof kOne);
  }
  return w;
}

/// Activations that are half of bipolar integers of `bits`, with the largest in each group, so that quantising them
/// changes nothing.
std::vector<float> unit_activations(int bits, size_t n, uint64_t seed) {
  TestRandom random(seed);
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) {
    const unsigned code = random.bits() % (1u << bits);
    x[i] = 0.5f * static_cast<float>(i % 128 == 77 ? bipolar::largest(bits) : bipolar::value(bits, code));
  }
  return x;
}

std::vector<float> run(const Matrix& w, const std::vector<float>& x) {
  const size_t n_tokens = x.size() / w.columns;
  std::vector<float> y(n_tokens * w.rows);
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), n_tokens, w.columns);
  matmul(w, input, nullptr, y.data(), w.rows);
  const DType types[] = {w.dtype};
  EXPECT_LE(ledger.peak(Tier::kRam), matmul_scratch_bytes(n_tokens, w.columns, types));
  return y;
}

Matrix packed_planes(const TestMatrix& w, int bits, std::vector<std::byte>& memory) {
  memory.resize(packed_bytes(w.type, w.rows, w.columns) + 64);
  std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  return pack_bit_planes(w.plain(), bits, aligned);
}

TEST(BitPlanes, EveryPairOfWidthsIsTheIntegerProduct) {
  on_every_target([] {
    for (int weight_bits = 1; weight_bits <= 8; ++weight_bits) {
      for (int bits = 1; bits <= 8; ++bits) {
        constexpr size_t kRows = 18, kColumns = 256, kTokens = 3;
        const TestMatrix w = unit_matrix(weight_bits, kRows, kColumns, static_cast<uint64_t>(weight_bits));
        const std::vector<float> x = unit_activations(bits, kTokens * kColumns, static_cast<uint64_t>(bits));
        const std::vector<float> weights = w.decoded();
        Matrix plain = w.plain();
        plain.plane_bits = static_cast<uint8_t>(bits);
        std::vector<std::byte> memory;
        const std::vector<float> from_rows = run(plain, x), from_planes = run(packed_planes(w, bits, memory), x);
        for (size_t i = 0; i < from_rows.size(); ++i) {
          double sum = 0;
          for (size_t k = 0; k < kColumns; ++k) {
            sum += static_cast<double>(weights[i % kRows * kColumns + k]) *
                   static_cast<double>(x[i / kRows * kColumns + k]);
          }
          ASSERT_EQ(static_cast<double>(from_rows[i]), sum) << "W" << weight_bits << "A" << bits;
          ASSERT_EQ(from_planes[i], from_rows[i]) << "W" << weight_bits << "A" << bits;
        }
      }
    }
  });
}

TEST(BitPlanes, TokensDoNotDependOnOneAnotherAndBiasIsAdded) {
  on_every_target([] {
    const TestMatrix w(DType::kBipolar2, 50, 640, 5);
    const std::vector<float> x = test_activations(19, 640, 6);
    std::vector<std::byte> memory;
    const Matrix packed = packed_planes(w, 3, memory);
    const std::vector<float> together = run(packed, x);
    for (size_t t : {0, 7, 8, 18}) {
      const std::vector<float> one(x.begin() + static_cast<long>(t * 640),
                                   x.begin() + static_cast<long>((t + 1) * 640));
      const std::vector<float> alone = run(packed, one);
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + t * 50, sizeof(float) * 50), 0) << t;
    }
    std::vector<float> bias(50, 2.5f), y(50);
    Ledger ledger;
    MatmulInput input(ledger);
    input.set(x.data(), 1, 640);
    matmul(packed, input, bias.data(), y.data(), 50);
    for (size_t r = 0; r < 50; ++r) EXPECT_EQ(y[r], together[r] + 2.5f);
  });
}

TEST(BitPlanes, NothingGivesNothingAndNanGivesNan) {
  on_every_target([] {
    const TestMatrix w(DType::kBipolar1, 17, 256, 7);
    std::vector<std::byte> memory;
    const Matrix packed = packed_planes(w, 1, memory);
    std::vector<float> x(256, 0.0f);
    for (float y : run(packed, x)) EXPECT_EQ(y, 0.0f);
    x[3] = std::numeric_limits<float>::infinity();
    for (float y : run(packed, x)) EXPECT_TRUE(std::isnan(y));
  });
}

}  // namespace
}  // namespace mneme::kernels
