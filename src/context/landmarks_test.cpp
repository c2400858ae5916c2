#include "context/landmarks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <vector>

#include "base/checked_math.h"
#include "context/kv_example.h"

namespace mneme {
namespace {

constexpr size_t kChunk = Landmarks::kTokens;

/// Landmarks of an example, and their exact means.
struct Marked {
  Ledger ledger;
  Landmarks landmarks;
  std::vector<double> means;  ///< [head][chunk][key_dim].
  size_t n_chunks;

  explicit Marked(const KvExample& e) : landmarks(e.shape, e.n_tokens / kChunk, ledger), n_chunks(e.n_tokens / kChunk) {
    const size_t dim = e.shape.key_dim, heads = e.shape.n_kv_heads;
    const std::vector<float> keys = e.rotated_keys();
    landmarks.grow_to(n_chunks);
    means.assign(heads * n_chunks * dim, 0);
    for (size_t head = 0; head < heads; ++head) {
      for (size_t chunk = 0; chunk < n_chunks; ++chunk) {
        std::vector<float> rows(kChunk * dim);
        for (size_t t = 0; t < kChunk; ++t) {
          std::copy_n(&keys[((chunk * kChunk + t) * heads + head) * dim], dim, &rows[t * dim]);
          for (size_t c = 0; c < dim; ++c)
            means[(head * n_chunks + chunk) * dim + c] += static_cast<double>(rows[t * dim + c]) / kChunk;
        }
        landmarks.set(chunk, head, rows.data());
      }
    }
  }

  /// The n chunks that exact means choose, ascending.
  std::vector<int32_t> best(size_t head, const float* q, size_t n_rows, float scale, size_t dim, size_t n) const {
    std::vector<double> worth(n_chunks, 0);
    for (size_t r = 0; r < n_rows; ++r) {
      std::vector<double> p(n_chunks, 0);
      for (size_t j = 0; j < n_chunks; ++j) {
        for (size_t c = 0; c < dim; ++c)
          p[j] +=
              static_cast<double>(q[r * dim + c]) * static_cast<double>(scale) * means[(head * n_chunks + j) * dim + c];
        p[j] = std::exp(p[j]);
      }
      const double sum = std::accumulate(p.begin(), p.end(), 0.0);
      for (size_t j = 0; j < n_chunks; ++j) worth[j] = std::max(worth[j], p[j] / sum);
    }
    std::vector<int32_t> order(n_chunks);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return worth[static_cast<size_t>(a)] > worth[static_cast<size_t>(b)];
    });
    order.resize(n);
    std::sort(order.begin(), order.end());
    return order;
  }
};

/// Share of the chunks of exact means that codes choose as well, for queries of 100 tokens and n chunks.
double agreement(const KvExample& e, size_t n) {
  const Marked marked(e);
  const size_t dim = e.shape.key_dim, group = e.n_heads / e.shape.n_kv_heads;
  size_t same = 0, all = 0;
  for (size_t t = e.n_tokens - 100; t < e.n_tokens; ++t) {
    const KvQueries how = e.queries(t);
    for (size_t head = 0; head < e.shape.n_kv_heads; ++head) {
      const float* const q = how.q + head * group * dim;
      std::vector<int32_t> chosen, both;
      marked.landmarks.choose(head, q, group, how, marked.n_chunks, {}, n, chosen);
      EXPECT_EQ(chosen.size(), n);
      const std::vector<int32_t> want = marked.best(head, q, group, how.scale, dim, n);
      std::set_intersection(chosen.begin(), chosen.end(), want.begin(), want.end(), std::back_inserter(both));
      same += both.size();
      all += n;
    }
  }
  return static_cast<double>(same) / static_cast<double>(all);
}

TEST(Landmarks, CodesChooseWhatExactMeansWould) {
  EXPECT_GT(agreement(hidden_state_example({2, 64, 16, 0}, 8, 4096, 1), 64), 0.98);
  EXPECT_GT(agreement(OddTokensExample(4096, false).example, 64), 0.98);
  // A few channels ten times as large as the others share their grids with them, which costs chunks at the margin.
  EXPECT_GT(agreement(outlier_example(4096), 64), 0.93);
}

TEST(Landmarks, LeaveOutWhatIsExcludedAndTakeTheFirstOfEqualOnes) {
  KvExample e({1, 64, 16, 0}, 2, 800);
  Marked marked(e);
  std::vector<int32_t> chosen;
  const KvQueries how = e.queries(3);
  const std::vector<int32_t> best = marked.best(0, how.q, 2, how.scale, 64, 10);
  marked.landmarks.choose(0, how.q, 2, how, 100, {}, 10, chosen);
  EXPECT_EQ(chosen, best);
  const std::vector<int32_t> excluded = {best[0], best[4]};
  marked.landmarks.choose(0, how.q, 2, how, 100, excluded, 10, chosen);
  std::vector<int32_t> want = marked.best(0, how.q, 2, how.scale, 64, 12);
  std::erase_if(want, [&](int32_t chunk) { return chunk == best[0] || chunk == best[4]; });
  EXPECT_EQ(chosen, want);
  const std::vector<int32_t> third = {2};
  marked.landmarks.choose(0, how.q, 2, how, 5, third, 4, chosen);
  EXPECT_EQ(chosen, (std::vector<int32_t>{0, 1, 3, 4})) << "all others";
  // Nothing to choose between: queries of zeros and queries that are no numbers.
  for (const float x : {0.0f, std::numeric_limits<float>::quiet_NaN()}) {
    std::fill(e.q.begin(), e.q.end(), x);
    const std::vector<int32_t> first = {1};
    marked.landmarks.choose(0, e.q.data(), 2, how, 100, first, 3, chosen);
    EXPECT_EQ(chosen, (std::vector<int32_t>{0, 2, 3}));
  }
}

TEST(Landmarks, TakeAByteAChannelAndFourForSixtyFour) {
  const KvShape shape{2, 128, 64, 0};
  EXPECT_EQ(Landmarks::reserved_bytes(shape, 4096), 2u * round_up<uint64_t>(4096 * (128 + 8), 4096));
  EXPECT_EQ(Landmarks::reserved_bytes(shape, 1), 2u * round_up<uint64_t>(32 * (128 + 8), 4096)) << "whole matrices";
  Ledger ledger;
  Landmarks landmarks(shape, 4096, ledger);
  for (const uint64_t n : {1u, 32u, 33u, 1000u}) {
    landmarks.grow_to(n);
    EXPECT_EQ(landmarks.bytes(), Landmarks::reserved_bytes(shape, n));
  }
}

TEST(Landmarks, AreReadAsTheMeanOfTheirKeys) {
  const KvExample e = hidden_state_example({2, 64, 16, 0}, 2, 520, 1);
  const Marked marked(e);
  std::vector<float> read(64);
  for (size_t head = 0; head < 2; ++head) {
    for (size_t chunk = 0; chunk < marked.n_chunks; ++chunk) {
      marked.landmarks.decode(chunk, head, read.data());
      const double* const mean = &marked.means[(head * marked.n_chunks + chunk) * 64];
      const auto [low, high] = std::minmax_element(mean, mean + 64);
      for (size_t c = 0; c < 64; ++c) ASSERT_NEAR(static_cast<double>(read[c]), mean[c], 0.6 * (*high - *low) / 255);
    }
  }
}

}  // namespace
}  // namespace mneme
