#include "weights/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/philox.h"

namespace mneme {
namespace {

constexpr size_t kColumns = 256, kInputs = 700;

/// Gram matrix of inputs whose channels are correlated and of unequal size, as those of language models are.
std::vector<float> test_gram() {
  PhiloxStream random(1);
  std::vector<double> sums(kColumns * kColumns);
  std::vector<double> x(kColumns);
  for (size_t t = 0; t < kInputs; ++t) {
    double common = 0;
    for (size_t j = 0; j < kColumns; ++j) {
      common = 0.8 * common + static_cast<double>(random.next_normal());
      x[j] = common * (j % 16 == 0 ? 4.0 : 1.0);
    }
    for (size_t i = 0; i < kColumns; ++i) {
      for (size_t j = 0; j < kColumns; ++j) sums[i * kColumns + j] += x[i] * x[j];
    }
  }
  return {sums.begin(), sums.end()};
}

TEST(Gptq, FactorIsThatOfTheInverse) {
  const std::vector<float> gram = test_gram();
  const std::vector<float> u = gptq_factor(gram, kColumns, 0.01f);
  double mean = 0;
  for (size_t j = 0; j < kColumns; ++j) mean += static_cast<double>(gram[j * kColumns + j]) / kColumns;
  // (U^T U) H = 1, checked on single columns of H.
  for (size_t c : {size_t{0}, size_t{17}, kColumns - 1}) {
    std::vector<double> h(kColumns), uh(kColumns);
    for (size_t i = 0; i < kColumns; ++i) {
      h[i] = static_cast<double>(gram[i * kColumns + c]) / mean + (i == c ? 0.01 : 0.0);
    }
    for (size_t i = 0; i < kColumns; ++i) {
      for (size_t j = i; j < kColumns; ++j) uh[i] += static_cast<double>(u[i * kColumns + j]) * h[j];
    }
    for (size_t i = 0; i < kColumns; ++i) {
      double value = 0;
      for (size_t j = 0; j <= i; ++j) value += static_cast<double>(u[j * kColumns + i]) * uh[j];
      EXPECT_NEAR(value, i == c ? 1.0 : 0.0, 1e-3) << i << " " << c;
    }
  }
}

TEST(Gptq, OutputsChangeLessThanWithRounding) {
  const std::vector<float> gram = test_gram(), factor = gptq_factor(gram, kColumns, 0.01f);
  PhiloxStream random(2);
  std::vector<float> w(24 * kColumns);
  for (float& v : w) v = random.next_normal();
  for (DType to : {DType::kQ4_0, DType::kBitMod3, DType::kBitMod4, DType::kBipolar2, DType::kQ2_K, DType::kQ3_K,
                   DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS, DType::kNVFP4}) {
    const DTypeInfo& info = dtype_info(to);
    std::vector<std::byte> plain(row_bytes(to, kColumns) * 24), fed(plain.size());
    std::vector<float> rounded(w.size()), result(w.size()), work = w;
    info.encode(w.data(), nullptr, plain.data(), w.size());
    info.decode(plain.data(), rounded.data(), w.size());
    gptq_encode(work, kColumns, factor, nullptr, to, fed.data());
    info.decode(fed.data(), result.data(), w.size());
    const double before = output_error(w, rounded, gram, kColumns), after = output_error(w, result, gram, kColumns);
    EXPECT_LT(after, 0.7 * before) << info.name;
  }
}

TEST(Gptq, SilentInputsAreHarmless) {
  std::vector<float> gram(64 * 64, 0.0f), w(2 * 64, 0.3f);
  const std::vector<float> factor = gptq_factor(gram, 64, 0.01f);
  for (float v : factor) EXPECT_TRUE(std::isfinite(v));
  std::vector<std::byte> out(row_bytes(DType::kQ4_0, 64) * 2);
  gptq_encode(w, 64, factor, nullptr, DType::kQ4_0, out.data());
  std::vector<float> back(128);
  dtype_info(DType::kQ4_0).decode(out.data(), back.data(), 128);
  for (float v : back) EXPECT_NEAR(v, 0.3f, 1e-3f);
}

}  // namespace
}  // namespace mneme
