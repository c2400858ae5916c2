#include "kernels/attention_parts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/philox.h"
#include "kernels/vector_ops.h"

namespace mneme::kernels {
namespace {

std::vector<float> normals(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& x : out) x = random.next_normal();
  return out;
}

/// The rows as stored in `dtype`, and their values after that.
struct Stored {
  std::vector<float> values;
  std::vector<uint16_t> half;
  StoredRows rows;

  Stored(size_t n, size_t dim, DType dtype, uint64_t seed) : values(normals(n * dim, seed)), half(n * dim) {
    rows = {reinterpret_cast<const std::byte*>(values.data()), dim * 4, dtype};
    if (dtype != DType::kF16) return;
    vector_ops().f32_to_f16(values.data(), values.size(), half.data());
    vector_ops().f16_to_f32(half.data(), half.size(), values.data());
    rows = {reinterpret_cast<const std::byte*>(half.data()), dim * 2, dtype};
  }
};

TEST(AttentionParts, ScoresAreDotProducts) {
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    for (const size_t dim : {1u, 16u, 64u, 80u, 100u, 576u}) {
      for (const size_t n_keys : {1u, 63u, 64u, 200u}) {
        const size_t n_rows = 9;
        const Stored keys(n_keys, dim, dtype, 1);
        const auto q = normals(n_rows * (dim + 3), 2);
        std::vector<float> scores(n_rows * (n_keys + 1), 7.0f);
        score_rows(q.data(), dim + 3, n_rows, keys.rows, n_keys, dim, scores.data(), n_keys + 1);
        for (size_t r = 0; r < n_rows; ++r) {
          for (size_t j = 0; j < n_keys; ++j) {
            double want = 0;
            for (size_t i = 0; i < dim; ++i)
              want += static_cast<double>(q[r * (dim + 3) + i]) * static_cast<double>(keys.values[j * dim + i]);
            ASSERT_NEAR(scores[r * (n_keys + 1) + j], want, 1e-4) << dim << " " << r << " " << j;
          }
          EXPECT_EQ(scores[r * (n_keys + 1) + n_keys], 7.0f);
        }
      }
    }
  }
}

TEST(AttentionParts, CombinationsAreWeightedSums) {
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    for (const size_t dim : {1u, 16u, 72u, 1000u}) {
      for (const size_t n_values : {1u, 64u, 160u}) {
        const size_t n_rows = 8;
        const Stored values(n_values, dim, dtype, 3);
        const auto weights = normals(n_rows * n_values, 4);
        std::vector<float> out(n_rows * dim, 1.0f);
        combine_rows(weights.data(), n_values, n_rows, values.rows, n_values, dim, out.data(), dim);
        for (size_t r = 0; r < n_rows; ++r) {
          for (size_t i = 0; i < dim; ++i) {
            double want = 1;
            for (size_t j = 0; j < n_values; ++j)
              want += static_cast<double>(weights[r * n_values + j]) * static_cast<double>(values.values[j * dim + i]);
            ASSERT_NEAR(out[r * dim + i], want, 2e-4) << dim << " " << r << " " << i;
          }
        }
      }
    }
  }
}

// Stores promise the same bits however a sequence is cut.
TEST(AttentionParts, RowsDoNotDependOnTheirNeighbours) {
  const size_t dim = 80, n = 150, n_rows = 11;
  const Stored stored(n, dim, DType::kF16, 5);
  const auto q = normals(n_rows * dim, 6), weights = normals(n_rows * n, 7);
  std::vector<float> scores(n_rows * n), sums(n_rows * dim);
  score_rows(q.data(), dim, n_rows, stored.rows, n, dim, scores.data(), n);
  combine_rows(weights.data(), n, n_rows, stored.rows, n, dim, sums.data(), dim);
  for (size_t r = 0; r < n_rows; ++r) {
    std::vector<float> score(n), sum(dim);
    score_rows(q.data() + r * dim, dim, 1, stored.rows, n, dim, score.data(), n);
    combine_rows(weights.data() + r * n, n, 1, stored.rows, n, dim, sum.data(), dim);
    EXPECT_EQ(score, std::vector<float>(scores.begin() + static_cast<long>(r * n),
                                        scores.begin() + static_cast<long>((r + 1) * n)));
    EXPECT_EQ(sum, std::vector<float>(sums.begin() + static_cast<long>(r * dim),
                                      sums.begin() + static_cast<long>((r + 1) * dim)));
  }
}

}  // namespace
}  // namespace mneme::kernels
