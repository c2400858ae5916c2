#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <memory>
#include <tuple>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/matmul_test_data.h"
#include "kernels/op_check.h"
#include "tensor/dfloat.h"
#include "tensor/weight_format.h"

namespace mneme::kernels {
namespace {

std::vector<DType> multiplied_types() {
  std::vector<DType> types;
  for (const DTypeInfo& info : all_dtypes()) {
    if (info.decode != nullptr && info.block_bytes != info.block_elements * 8) types.push_back(info.dtype);
  }
  return types;
}

/// y for `x`, with two guard columns that must stay as they were.
std::vector<float> product(const Matrix& w, const std::vector<float>& x, const float* bias = nullptr) {
  const size_t n_tokens = x.size() / w.columns, stride = w.rows + 2;
  std::vector<float> y(n_tokens * stride, -7.0f);
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), n_tokens, w.columns);
  matmul(w, input, bias, y.data(), stride);
  const DType types[] = {w.dtype};
  EXPECT_LE(ledger.peak(Tier::kRam), matmul_scratch_bytes(n_tokens, w.columns, types));
  EXPECT_LE(ledger.peak(Tier::kRam), matmul_scratch_bytes(n_tokens, w.columns));
  std::vector<float> values;
  for (size_t t = 0; t < n_tokens; ++t) {
    values.insert(values.end(), y.begin() + static_cast<long>(t * stride),
                  y.begin() + static_cast<long>(t * stride + w.rows));
    EXPECT_EQ(y[t * stride + w.rows], -7.0f);
    EXPECT_EQ(y[t * stride + w.rows + 1], -7.0f);
  }
  return values;
}

/// 64-byte aligned memory for packed matrices.
struct Packed {
  explicit Packed(const TestMatrix& w)
      : buffer(ledger, Tag::kWeights, packed_bytes(w.type, w.rows, w.columns), "test"),
        matrix(pack_matrix(w.plain(), buffer.data())) {}
  Ledger ledger;
  Buffer buffer;
  Matrix matrix;
};

bool is_packable(DType dtype) {
  return packed_bytes(dtype, 16, 256) > 0;
}

/// Checks a product against sums in double of the decoded weights with the activations as the kernels see them.
void check_product(const TestMatrix& w, const std::vector<float>& x, const std::vector<float>& y, double limit = 0) {
  const size_t n_tokens = x.size() / w.columns;
  const std::vector<float> weights = w.decoded();
  const std::vector<double> seen = seen_activations(x, form_of(w.type), limit);
  EXPECT_TRUE(close_to(y,
                       [&](size_t i) {
                         const size_t t = i / w.rows, r = i % w.rows;
                         double sum = 0, size = 0, sum_of_largest = 0;
                         for (size_t b = 0; b < w.columns; b += 16) {
                           double largest = 0, activations = 0;
                           for (size_t k = b; k < std::min(b + 16, w.columns); ++k) {
                             const double weight = weights[r * w.columns + k], activation = seen[t * w.columns + k];
                             sum += weight * activation;
                             size += std::abs(weight * activation);
                             largest = std::max(largest, std::abs(weight));
                             activations += std::abs(activation);
                           }
                           // A group's sum and its minimum may each be as large as this and cancel.
                           sum_of_largest += largest * activations;
                         }
                         // Every f32 operation on the way of a term rounds once: one addition a column of a tile (a
                         // group, in 8 bits) and one a tile.
                         const size_t chain = form_of(w.type) == TestForm::kInt8 ? 2 * 16 : 256;
                         const double roundings = static_cast<double>(std::min(chain, w.columns) + w.columns / 256 + 2);
                         const double bound = roundings * kUnitRoundoff *
                                              (form_of(w.type) == TestForm::kInt8 ? 2 * sum_of_largest : size);
                         return Expected{sum, std::max(bound, kSmallestNormal)};
                       }))
      << "type " << dtype_info(w.type).name << ", " << w.rows << " x " << w.columns << ", " << n_tokens << " tokens";
}

std::vector<size_t> odd_columns(DType dtype) {
  const size_t block = dtype_info(dtype).block_elements;
  if (block == 1) return {1, 7, 97, 256, 515};
  if (block == 256) return {256, 768};
  return {block, 3 * block, 256, 256 + 5 * block};
}

TEST(Matmul, EveryTypeAgreesWithDoubleSumsOnEveryTarget) {
  on_every_target([] {
    for (DType dtype : multiplied_types()) {
      for (size_t columns : odd_columns(dtype)) {
        for (size_t rows : {1, 3, 17, 33}) {
          const TestMatrix w(dtype, rows, columns, 7 * rows + columns);
          for (size_t n_tokens : {1, 2, 5, 17}) {
            const std::vector<float> x = test_activations(n_tokens, columns, rows + n_tokens);
            check_product(w, x, product(w.plain(), x));
            if (is_packable(dtype)) check_product(w, x, product(Packed(w).matrix, x));
          }
        }
      }
    }
  });
}

TEST(Matmul, AlargerProductAgreesWithDoubleSums) {
  on_every_target([] {
    for (DType dtype :
         {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K}) {
      const TestMatrix w(dtype, 160, 2048, 3);
      const std::vector<float> x = test_activations(33, 2048, 4);
      check_product(w, x, product(Packed(w).matrix, x));
    }
  });
}

TEST(Matmul, TokensDoNotDependOnOneAnother) {
  on_every_target([] {
    for (DType dtype : multiplied_types()) {
      const size_t columns = dtype_info(dtype).block_elements == 1 ? 777 : 1280;
      const TestMatrix w(dtype, 49, columns, 11);
      const std::vector<float> x = test_activations(33, columns, 12);
      std::vector<float> alone;
      for (size_t t = 0; t < 33; ++t) {
        const std::vector<float> one(x.begin() + static_cast<long>(t * columns),
                                     x.begin() + static_cast<long>((t + 1) * columns));
        const std::vector<float> y = product(w.plain(), one);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      const auto expect_same = [&](const Matrix& matrix, size_t n_tokens) {
        const std::vector<float> some(x.begin(), x.begin() + static_cast<long>(n_tokens * columns));
        const std::vector<float> y = product(matrix, some);
        EXPECT_EQ(0, std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)))
            << dtype_info(dtype).name << ", " << n_tokens << " tokens, layout " << static_cast<int>(matrix.layout);
      };
      for (size_t n_tokens : {2, 3, 4, 5, 6, 7, 8, 13, 17, 33}) expect_same(w.plain(), n_tokens);
      if (!is_packable(dtype)) continue;
      const Packed packed(w);
      for (size_t n_tokens : {1, 2, 3, 8, 33}) expect_same(packed.matrix, n_tokens);
    }
  });
}

/// With scales that are powers of two all sums are exact integers below 2^24 times one power: every target must give
/// the same bits.
TEST(Matmul, IntegersAreTheSameOnEveryTarget) {
  constexpr size_t kRows = 33, kColumns = 512, kTokens = 5;
  for (DType dtype : multiplied_types()) {
    if (form_of(dtype) != TestForm::kInt8) continue;
    TestMatrix w(dtype, kRows, kColumns, 21);
    for (size_t block = 0; block < w.bytes.size(); block += dtype_info(dtype).block_bytes) {
      constexpr uint16_t kOne = 0x3c00;
      for (size_t field : half_fields(dtype)) std::memcpy(w.bytes.data() + block + field, &kOne, sizeof kOne);
      if (dtype == DType::kMXFP4) w.bytes[block] = std::byte{128};
      if (dtype == DType::kNVFP4) std::fill_n(w.bytes.data() + block, 4, std::byte{0x40});  // 2, halved by the table
      if (dtype == DType::kBitMod3 || dtype == DType::kBitMod4) {  // a scale of one and all four special levels
        w.bytes[block] |= static_cast<std::byte>(block / dtype_info(dtype).block_bytes % 2);
        w.bytes[block + 1] |= static_cast<std::byte>(block / dtype_info(dtype).block_bytes / 2 % 2 * 128);
      }
    }
    std::vector<float> x(kTokens * kColumns);
    TestRandom random(22);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>(static_cast<int>(random.bits() % 15) - 7) + (i % 32 == 0 ? 60.0f : 0.0f);
    std::vector<std::vector<float>> results;
    on_every_target([&] { results.push_back(product(w.plain(), x)); });
    const std::vector<float> weights = w.decoded();
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        double sum = 0;
        for (size_t k = 0; k < kColumns; ++k)
          sum += static_cast<double>(weights[r * kColumns + k]) * static_cast<double>(x[t * kColumns + k]);
        for (const std::vector<float>& result : results) {
          ASSERT_EQ(static_cast<double>(result[t * kRows + r]), sum)
              << dtype_info(dtype).name << " token " << t << " row " << r;
        }
      }
    }
  }
}

/// DF11 and DF12 hold bfloat16 without loss, so their products are those of bfloat16 to the bit.
TEST(Matmul, LosslessFormatsGiveTheBitsOfBf16) {
  on_every_target([] {
    for (const auto& [rows, columns] : {std::pair<size_t, size_t>{50, 516}, {16, 256}, {97, 1280}, {1, 4}}) {
      TestMatrix w(DType::kBF16, rows, columns, 71);
      TestRandom random(73);
      for (size_t i = 0; i < rows * columns; ++i) {  // with exponents of any size, few in a row and many
        if (i % columns < 4 || i + 1 == rows * columns || (i / columns % 16 > 12 && random.bits() % 8 == 0)) {
          const uint16_t word = dfloat::with_exponent(static_cast<uint16_t>(random.bits()), 90 + random.bits() % 60);
          std::memcpy(w.bytes.data() + 2 * i, &word, sizeof word);
        }
      }
      const TensorView view{DType::kBF16, Shape{rows, columns}, w.bytes.data()};
      for (DType dtype : {DType::kDf11, DType::kDf12}) {
        std::vector<std::byte> bytes;
        weight_format(dtype).encoder(view)->write(
            view, [&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); });
        for (size_t n_tokens : {1, 3, 19}) {
          const std::vector<float> x = test_activations(n_tokens, columns, 72);
          const std::vector<float> want = product(w.plain(), x);
          const std::vector<float> got = product({dtype, Layout::kPlain, rows, columns, bytes.data()}, x);
          EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
              << dtype_info(dtype).name << " " << rows << " x " << columns;
        }
      }
    }
  });
}

TEST(Matmul, AnObserverSeesEveryInput) {
  Ledger ledger;
  MatmulInput input(ledger);
  const TestMatrix w(DType::kQ8_0, 20, 64, 75);
  const std::vector<float> x = test_activations(2, 64, 76);
  std::vector<float> y(40);
  int calls = 0;
  input.observe([&](std::span<const MatmulTask> tasks, const MatmulInput& seen) {
    ++calls;
    EXPECT_EQ(tasks.size(), 1u);
    EXPECT_EQ(tasks[0].w.data, w.plain().data);
    EXPECT_EQ(seen.x(), x.data());
  });
  input.set(x.data(), 2, 64);
  matmul(w.plain(), input, nullptr, y.data(), 20);
  input.observe({});
  matmul(w.plain(), input, nullptr, y.data(), 20);
  EXPECT_EQ(calls, 1);
}

TEST(Matmul, BiasIsAddedLast) {
  on_every_target([] {
    const TestMatrix w(DType::kQ8_0, 35, 96, 31);
    const std::vector<float> x = test_activations(7, 96, 32);
    std::vector<float> bias(35);
    for (size_t r = 0; r < bias.size(); ++r) bias[r] = static_cast<float>(r) - 4.25f;
    const std::vector<float> without = product(w.plain(), x), with = product(w.plain(), x, bias.data());
    for (size_t i = 0; i < with.size(); ++i) EXPECT_EQ(with[i], without[i] + bias[i % 35]);
  });
}

TEST(Matmul, OneInputServesSeveralTypesAndThenAnotherInput) {
  on_every_target([] {
    Ledger ledger;
    MatmulInput input(ledger);
    for (size_t n_tokens : {9, 1, 4}) {
      const std::vector<float> x = test_activations(n_tokens, 512, n_tokens);
      input.set(x.data(), n_tokens, 512);
      for (DType dtype : {DType::kQ4_K, DType::kQ6_K, DType::kQ4_0, DType::kBF16, DType::kQ4_K, DType::kF32}) {
        const TestMatrix w(dtype, 20, 512, 41);
        std::vector<float> y(n_tokens * 20);
        matmul(w.plain(), input, nullptr, y.data(), 20);
        EXPECT_EQ(y, product(w.plain(), x)) << dtype_info(dtype).name;
      }
    }
    EXPECT_GT(ledger.used(Tier::kRam, Tag::kScratch), 0u);
  });
}

TEST(Matmul, ExtremeActivations) {
  constexpr size_t kColumns = 64;
  const TestMatrix w(DType::kQ8_0, 17, kColumns, 51);
  const std::vector<float> weights = w.decoded();
  on_every_target([&] {
    std::vector<float> x(kColumns, 0.0f);
    for (float y : product(w.plain(), x)) EXPECT_EQ(y, 0.0f);
    // Rounding at both ends: 127 stays, anything above doubles the scale.
    for (float largest : {127.0f, std::nextafter(127.0f, 128.0f), 0x1p-130f, 0x1p100f, 3e-39f}) {
      std::fill(x.begin(), x.end(), largest);
      x[3] = -largest;
      const bool tiny = largest < 0x1p-113f;  // below the smallest scale: counts as zero or one step of 2^-120
      const std::vector<float> y = product(w.plain(), x);
      if (tiny) {
        for (float value : y) EXPECT_LT(std::abs(value), 0x1p-100f);
      } else {
        check_product(w, x, y);
      }
    }
    Matrix limited = w.plain();
    limited.input_limit = 2;
    for (float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      std::fill(x.begin(), x.end(), 1.0f);
      x[40] = bad;
      for (float y : product(w.plain(), x)) EXPECT_TRUE(std::isnan(y));
      for (float y : product(limited, x)) EXPECT_TRUE(std::isnan(y));
    }
  });
}

/// Static scales: every block has that of the limit, and what is larger becomes the limit.
TEST(Matmul, AnInputLimitTakesThePlaceOfLargestValues) {
  on_every_target([] {
    const std::vector<float> x = test_activations(5, 512, 61);  // magnitudes up to 24, most below 2
    for (const float limit : {0.75f, 4.0f, 100.0f}) {
      for (DType dtype : multiplied_types()) {
        if (form_of(dtype) != TestForm::kInt8) continue;
        const TestMatrix w(dtype, 20, 512, 62);
        Matrix limited = w.plain();
        limited.input_limit = limit;
        check_product(w, x, product(limited, x), static_cast<double>(limit));
        EXPECT_NE(product(limited, x), product(w.plain(), x)) << dtype_info(dtype).name;
        if (!is_packable(dtype)) continue;
        const Packed packed(w);
        Matrix moved = packed.matrix;
        moved.input_limit = limit;
        check_product(w, x, product(moved, x), static_cast<double>(limit));
      }
    }
  });
}

/// Matrices that read one input share its form only where their limits are equal.
TEST(Matmul, LimitsOfOneMatrixAreNotThoseOfTheNext) {
  const std::vector<float> x = test_activations(3, 256, 63);
  const TestMatrix w(DType::kQ8_0, 16, 256, 64);
  std::vector<Matrix> forms(4, w.plain());
  forms[1].input_limit = forms[2].input_limit = 1.5f;
  std::vector<std::vector<float>> y(forms.size(), std::vector<float>(3 * 16));
  std::vector<MatmulTask> tasks;
  for (size_t i = 0; i < forms.size(); ++i) tasks.push_back({forms[i], nullptr, y[i].data(), 16});
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), 3, 256);
  matmul(tasks, input);
  for (size_t i = 0; i < forms.size(); ++i) EXPECT_EQ(y[i], product(forms[i], x)) << i;
  EXPECT_NE(y[0], y[1]);
}

TEST(Matmul, PlanesAreTakenWhereTheyWereMeasuredToBeFaster) {
  on_every_target([] {
    const bool counts = active_target() == Target::kAvx512;
    EXPECT_TRUE(wants_bit_planes(DType::kBipolar1, 7));
    EXPECT_TRUE(wants_bit_planes(DType::kBipolar3, 3));
    EXPECT_TRUE(wants_bit_planes(DType::kBipolar4, 2));
    EXPECT_EQ(wants_bit_planes(DType::kBipolar2, 4), counts);
    EXPECT_EQ(wants_bit_planes(DType::kBipolar4, 4), counts);
    EXPECT_FALSE(wants_bit_planes(DType::kBipolar2, 5));
    EXPECT_FALSE(wants_bit_planes(DType::kBipolar5, 1));
    EXPECT_FALSE(wants_bit_planes(DType::kBipolar1, 8));
    EXPECT_FALSE(wants_bit_planes(DType::kQ4_0, 2));
  });
}

/// Packing keeps the limit.
TEST(Matmul, PackedMatricesKeepTheirLimit) {
  const TestMatrix w(DType::kQ8_0, 16, 256, 65);
  Matrix limited = w.plain();
  limited.input_limit = 3;
  Ledger ledger;
  ASSERT_GT(packed_bytes(w.type, w.rows, w.columns), 0u);
  Buffer buffer(ledger, Tag::kWeights, packed_bytes(w.type, w.rows, w.columns), "test");
  EXPECT_EQ(pack_matrix(limited, buffer.data()).input_limit, 3.0f);
}

TEST(Matmul, PackedIsAsLargeAsPlain) {
  for (DType dtype : multiplied_types()) {
    const size_t packed = packed_bytes(dtype, 2048, 2048);
    if (packed == 0) continue;
    EXPECT_EQ(packed, 2048 * row_bytes(dtype, 2048)) << dtype_info(dtype).name;
  }
  EXPECT_EQ(packed_bytes(DType::kIQ1_S, 2048, 2048), 0u);
}

TEST(Matmul, UnreadableTypesAreRefused) {
  EXPECT_FALSE(can_multiply(DType::kIQ1_S));
  const std::vector<std::byte> bytes(50 * 16);
  const std::vector<float> x(256);
  std::vector<float> y(16);
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), 1, 256);
  EXPECT_THROW(matmul({DType::kIQ1_S, Layout::kPlain, 16, 256, bytes.data()}, input, nullptr, y.data(), 16), Error);
}

TEST(Matmul, ScratchIsRefusedBeforeItIsTaken) {
  const TestMatrix w(DType::kQ8_0, 16, 256, 61);
  const std::vector<float> x(256 * 64);
  std::vector<float> y(16 * 64);
  Ledger ledger(8192);
  MatmulInput input(ledger);
  input.set(x.data(), 64, 256);
  EXPECT_THROW(matmul(w.plain(), input, nullptr, y.data(), 16), Error);
}

TEST(Matmul, TasksTogetherGiveTheBitsOfEachAlone) {
  // Forms that agree and that don't, a last stripe without partner, more tasks than one loop takes.
  const struct {
    DType type;
    size_t rows;
  } kTasks[] = {{DType::kQ4_0, 48}, {DType::kQ4_0, 17}, {DType::kQ8_0, 64}, {DType::kQ6_K, 33}, {DType::kQ6_K, 160},
                {DType::kF32, 40},  {DType::kF32, 16},  {DType::kF32, 7},   {DType::kF32, 31},  {DType::kF32, 16},
                {DType::kF32, 16},  {DType::kF32, 16},  {DType::kF32, 16},  {DType::kF32, 50},  {DType::kBF16, 65}};
  constexpr size_t kColumns = 512;
  const int threads_before = n_threads();
  set_n_threads(3);
  for (const size_t n_tokens : {1, 5}) {
    const std::vector<float> x = test_activations(n_tokens, kColumns, 3);
    std::vector<TestMatrix> matrices;
    std::vector<std::unique_ptr<Packed>> packed;
    std::vector<std::vector<float>> together;
    std::vector<MatmulTask> tasks;
    for (const auto& task : kTasks) {
      matrices.emplace_back(task.type, task.rows, kColumns, 5 + task.rows);
      packed.push_back(std::make_unique<Packed>(matrices.back()));
      together.emplace_back(n_tokens * task.rows);
      tasks.push_back({packed.back()->matrix, nullptr, together.back().data(), task.rows});
    }
    Ledger ledger;
    MatmulInput input(ledger);
    input.set(x.data(), n_tokens, kColumns);
    matmul(tasks, input);
    for (size_t i = 0; i < tasks.size(); ++i) {
      EXPECT_EQ(together[i], product(tasks[i].w, x)) << "task " << i << ", " << n_tokens << " tokens";
    }
  }
  set_n_threads(threads_before);
}

}  // namespace
}  // namespace mneme::kernels
