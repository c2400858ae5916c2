#include "kernels/codebook_search.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "base/philox.h"
#include "kernels/op_check.h"

namespace mneme::kernels {
namespace {

std::vector<float> normal(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = random.next_normal();
  return out;
}

TEST(CodebookSearch, SquaresAreThoseOfTheForm) {
  on_every_target([] {
    for (size_t dims : {1, 2, 4, 8}) {
      for (size_t n : {16, 48, 256}) {
        const std::vector<float> book = normal(dims * n, n), a = normal(dims * dims, n + 1);
        std::vector<float> out(n);
        codebook_ops().squares(book.data(), dims, n, a.data(), out.data());
        EXPECT_TRUE(close_to(out, [&](size_t k) {
          double sum = 0, size = 0;
          for (size_t i = 0; i < dims; ++i) {
            for (size_t j = 0; j < dims; ++j) {
              const double part = static_cast<double>(book[i * n + k]) * static_cast<double>(a[i * dims + j]) *
                                  static_cast<double>(book[j * n + k]);
              sum += part;
              size += std::abs(part);
            }
          }
          return Expected{sum, 1e-5 * size};
        }));
      }
    }
  });
}

TEST(CodebookSearch, TheLeastEntryIsFound) {
  on_every_target([] {
    for (size_t dims : {1, 2, 4, 8}) {
      for (size_t n : {16, 64, 1024}) {
        const std::vector<float> book = normal(dims * n, n), constant = normal(n, n + 1);
        for (uint64_t seed = 0; seed < 20; ++seed) {
          const std::vector<float> slope = normal(dims, 100 + seed);
          std::vector<double> values(n);
          for (size_t k = 0; k < n; ++k) {
            values[k] = static_cast<double>(constant[k]);
            for (size_t i = 0; i < dims; ++i)
              values[k] += static_cast<double>(book[i * n + k]) * static_cast<double>(slope[i]);
          }
          float least = 0;
          const size_t found = codebook_ops().least(book.data(), dims, n, constant.data(), slope.data(), &least);
          const double best = *std::min_element(values.begin(), values.end());
          ASSERT_LT(found, n);
          EXPECT_NEAR(values[found], best, 1e-5);
          EXPECT_NEAR(static_cast<double>(least), best, 1e-5);
          std::vector<float> out(n);
          codebook_ops().values(book.data(), dims, n, constant.data(), slope.data(), out.data());
          EXPECT_TRUE(close_to(out, [&](size_t k) { return Expected{values[k], 1e-5}; }));
        }
      }
    }
  });
}

TEST(CodebookSearch, FirstOfEqualsAndNeverWhatIsInfinite) {
  on_every_target([] {
    const std::vector<float> book(64, 0.0f), slope(1, 1.0f);
    std::vector<float> constant(64, 3.0f);
    float least = 0;
    EXPECT_EQ(codebook_ops().least(book.data(), 1, 64, constant.data(), slope.data(), &least), 0u);
    for (size_t k = 0; k < 64; ++k) constant[k] = k < 5 ? 7.0f : std::numeric_limits<float>::infinity();
    constant[3] = constant[4] = 2.0f;
    EXPECT_EQ(codebook_ops().least(book.data(), 1, 64, constant.data(), slope.data(), &least), 3u);
    EXPECT_EQ(least, 2.0f);
  });
}

TEST(CodebookSearch, RowsAreAdded) {
  on_every_target([] {
    for (size_t dims : {1, 2, 4, 8}) {
      for (size_t n : {1, 7, 16, 45}) {
        const size_t stride = n + 3;
        const std::vector<float> rows = normal(dims * stride, n), factors = normal(dims, 5), before = normal(n, 6);
        std::vector<float> y = before;
        codebook_ops().add_rows(rows.data(), stride, dims, factors.data(), n, y.data());
        EXPECT_TRUE(close_to(y, [&](size_t c) {
          double sum = static_cast<double>(before[c]);
          for (size_t i = 0; i < dims; ++i) {
            sum += static_cast<double>(factors[i]) * static_cast<double>(rows[i * stride + c]);
          }
          return Expected{sum, 1e-5 * (1 + std::abs(sum))};
        }));
      }
    }
  });
}

}  // namespace
}  // namespace mneme::kernels
