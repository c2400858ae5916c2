#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace mneme::kernels {
namespace {

TEST(Matmul, PlainF32AgreesWithADoubleSum) {
  constexpr size_t kRows = 33, kColumns = 97, kTokens = 5;
  std::vector<float> w(kRows * kColumns), x(kTokens * kColumns), bias(kRows), y(kTokens * (kRows + 3), -1.0f);
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>(i));
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::cos(static_cast<float>(i) * 0.7f);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), kTokens, kColumns);
  const Matrix matrix{DType::kF32, Layout::kPlain, kRows, kColumns, reinterpret_cast<const std::byte*>(w.data())};
  matmul(matrix, input, bias.data(), y.data(), kRows + 3);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) {
      double sum = bias[r], size = std::abs(bias[r]);
      for (size_t k = 0; k < kColumns; ++k) {
        const double product = static_cast<double>(w[r * kColumns + k]) * static_cast<double>(x[t * kColumns + k]);
        sum += product;
        size += std::abs(product);
      }
      EXPECT_NEAR(y[t * (kRows + 3) + r], sum, kColumns * 0x1p-24 * size) << "token " << t << " row " << r;
    }
    EXPECT_EQ(y[t * (kRows + 3) + kRows], -1.0f);
  }
}

}  // namespace
}  // namespace mneme::kernels
