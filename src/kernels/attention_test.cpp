#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/op_check.h"

namespace mneme::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

/// A whole problem. Keys and values of several heads lie side by side as in a cache; the head under test is the second.
/// Every buffer has exactly the bytes that may be touched, so the address sanitizer sees any other access.
struct Problem {
  size_t n_rows = 0, n_keys = 0, head_dim = 0, value_dim = 0;
  DType dtype = DType::kF32;
  float scale = 1, softcap = 0;
  std::vector<float> q;                         // [n_rows, head_dim + 1]
  std::vector<std::byte> k, v;                  // [n_keys, 2 heads, dim], the last row cut behind the second head
  std::vector<float> k_values, v_values;        // what the stored keys and values decode to, [n_keys, dim]
  std::vector<uint32_t> first, last;

  size_t q_stride() const { return head_dim + 1; }
  size_t element_bytes() const { return dtype_info(dtype).block_bytes; }
  size_t k_stride() const { return 2 * head_dim * element_bytes(); }
  size_t v_stride() const { return 2 * value_dim * element_bytes(); }

  void set_key(size_t j, const std::vector<float>& values) {
    std::byte* at = k.data() + j * k_stride() + head_dim * element_bytes();
    dtype_info(dtype).encode(values.data(), nullptr, at, head_dim);
    dtype_info(dtype).decode(at, k_values.data() + j * head_dim, head_dim);
  }
  void set_value(size_t j, const std::vector<float>& values) {
    std::byte* at = v.data() + j * v_stride() + value_dim * element_bytes();
    dtype_info(dtype).encode(values.data(), nullptr, at, value_dim);
    dtype_info(dtype).decode(at, v_values.data() + j * value_dim, value_dim);
  }
  AttentionQueries queries(size_t row = 0, size_t n = SIZE_MAX) const {
    return {q.data() + row * q_stride(), std::min(n, n_rows - row), q_stride(), head_dim, value_dim, scale, softcap};
  }
  AttentionKeys keys(size_t row = 0) const {
    return {k.data() + head_dim * element_bytes(), v.data() + value_dim * element_bytes(), k_stride(), v_stride(), dtype,
            first.data() + row, last.data() + row};
  }
};

Problem make_problem(size_t n_rows, size_t n_keys, size_t head_dim, size_t value_dim, DType dtype, uint64_t seed = 1) {
  Problem p;
  p.n_rows = n_rows;
  p.n_keys = n_keys;
  p.head_dim = head_dim;
  p.value_dim = value_dim;
  p.dtype = dtype;
  p.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  PhiloxStream random(seed);
  p.q.resize(n_rows * p.q_stride());
  for (float& x : p.q) x = 2.0f * random.next_normal();
  p.k.resize(n_keys * p.k_stride());
  p.v.resize(n_keys * p.v_stride());
  p.k_values.resize(n_keys * head_dim);
  p.v_values.resize(n_keys * value_dim);
  std::vector<float> key(head_dim), value(value_dim);
  for (size_t j = 0; j < n_keys; ++j) {
    for (float& x : key) x = random.next_normal();
    for (float& x : value) x = random.next_normal();
    p.set_key(j, key);
    p.set_value(j, value);
  }
  p.first.assign(n_rows, 0);
  p.last.assign(n_rows, static_cast<uint32_t>(n_keys));
  return p;
}

/// Row i sees what a token at position n_keys - n_rows + i would: a triangle.
void make_causal(Problem& p) {
  for (size_t i = 0; i < p.n_rows; ++i) {
    p.last[i] = static_cast<uint32_t>(p.n_keys > p.n_rows - 1 - i ? p.n_keys - (p.n_rows - 1 - i) : 0);
  }
}

void make_window(Problem& p, uint32_t window) {
  make_causal(p);
  for (size_t i = 0; i < p.n_rows; ++i) p.first[i] = p.last[i] > window ? p.last[i] - window : 0;
}

/// Every kind of range at random, empty ones included.
void make_ragged(Problem& p) {
  PhiloxStream random(99);
  for (size_t i = 0; i < p.n_rows; ++i) {
    p.first[i] = static_cast<uint32_t>(random.next_below(p.n_keys + 1));
    p.last[i] = static_cast<uint32_t>(random.next_below(p.n_keys + 1));
  }
}

/// A triple with guard elements between the rows of out.
struct Result {
  size_t n_rows, value_dim, stride;
  std::vector<float> max, sum, out;

  Result(size_t rows, size_t dim)
      : n_rows(rows), value_dim(dim), stride(dim + 3), max(rows, -kInf), sum(rows, 0.0f), out(rows * stride, 0.0f) {
    for (size_t i = 0; i < rows; ++i) std::fill_n(out.begin() + static_cast<ptrdiff_t>(i * stride + dim), 3, 42.0f);
  }
  AttentionTriple triple(size_t row = 0) {
    return {max.data() + row, sum.data() + row, out.data() + row * stride, stride};
  }
  bool same_bits(const Result& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    return same(max, other.max) && same(sum, other.sum) && same(out, other.out);
  }
};

Result run(const Problem& p) {
  Result result(p.n_rows, p.value_dim);
  attend(p.queries(), p.keys(), result.triple());
  return result;
}

/// Attention of one row in double, and the error that f32 arithmetic may make.
struct RowReference {
  double max = -INFINITY, sum = 0;
  std::vector<double> out;        // finished
  double weight_error = 0;        // relative, of a weight
  std::vector<double> magnitude;  // sum of weight * |v| / sum
};

RowReference reference(const Problem& p, size_t row) {
  RowReference r;
  std::vector<double> scores;
  double largest_error = 0;
  for (size_t j = p.first[row]; j < p.last[row]; ++j) {
    double dot = 0, size = 0;
    for (size_t d = 0; d < p.head_dim; ++d) {
      const double product = static_cast<double>(p.q[row * p.q_stride() + d]) * p.k_values[j * p.head_dim + d];
      dot += product;
      size += std::abs(product);
    }
    double score = dot * p.scale;
    if (p.softcap > 0) score = p.softcap * std::tanh(score / p.softcap);
    scores.push_back(score);
    r.max = std::max(r.max, score);
    // A chain of head_dim sums, the scale, and with a cap the error of tanh. A chain's errors grow like its root; four
    // standard deviations.
    const double chain = 4 * std::sqrt(static_cast<double>(p.head_dim)) + 2;
    largest_error = std::max(largest_error, chain * kUnitRoundoff * size * p.scale + 7e-7 * std::abs(score));
  }
  r.out.assign(p.value_dim, 0);
  r.magnitude.assign(p.value_dim, 0);
  double spread = 0;
  for (size_t j = 0; j < scores.size(); ++j) {
    const double weight = std::exp(scores[j] - r.max);
    spread = std::max(spread, r.max - scores[j]);
    r.sum += weight;
    for (size_t d = 0; d < p.value_dim; ++d) {
      const double value = p.v_values[(p.first[row] + j) * p.value_dim + d];
      r.out[d] += weight * value;
      r.magnitude[d] += weight * std::abs(value);
    }
  }
  for (size_t d = 0; d < p.value_dim && r.sum > 0; ++d) {
    r.out[d] /= r.sum;
    r.magnitude[d] /= r.sum;
  }
  // The score's own error, that of the maximum, the difference's rounding, exp, and the chain over keys.
  const double chain = 4 * std::sqrt(static_cast<double>(scores.size())) + 8;
  r.weight_error = 2 * largest_error + (spread + chain) * kUnitRoundoff + 4e-7;
  return r;
}

void check_against_reference(const Problem& p) {
  Result result = run(p);
  std::vector<RowReference> rows;
  for (size_t i = 0; i < p.n_rows; ++i) rows.push_back(reference(p, i));
  EXPECT_TRUE(close_to(result.max, [&](size_t i) { return Expected{rows[i].max, rows[i].weight_error}; })) << "max";
  EXPECT_TRUE(close_to(result.sum, [&](size_t i) {
    return Expected{rows[i].sum, rows[i].weight_error * rows[i].sum};
  })) << "sum";
  finish_attention(result.triple(), p.n_rows, p.value_dim, nullptr);
  for (size_t i = 0; i < p.n_rows; ++i) {
    const float* out = result.out.data() + i * result.stride;
    EXPECT_TRUE(close_to({out, p.value_dim}, [&](size_t d) {
      return Expected{rows[i].out[d], 2 * rows[i].weight_error * rows[i].magnitude[d]};
    })) << "row " << i << " sees [" << p.first[i] << ", " << p.last[i] << ")";
    for (size_t d = p.value_dim; d < result.stride; ++d) EXPECT_EQ(out[d], 42.0f) << "wrote behind row " << i;
  }
}

TEST(Attention, AgreesWithDoubleForEveryTypeAndDimension) {
  on_every_target([] {
    for (size_t dim : {1, 8, 20, 40, 64, 80, 96, 112, 128, 256}) {
      for (DType dtype : kTypes) {
        SCOPED_TRACE("dim " + std::to_string(dim) + " " + std::string(dtype_info(dtype).name));
        Problem p = make_problem(5, 75, dim, dim, dtype);
        make_causal(p);
        check_against_reference(p);
        p = make_problem(17, 75, dim, dim, dtype);  // more rows than convert values on the fly
        make_window(p, 40);
        check_against_reference(p);
      }
    }
  });
}

TEST(Attention, AgreesWithDoubleForEveryNumberOfKeys) {
  on_every_target([] {
    for (size_t n_keys : {1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 1000}) {
      SCOPED_TRACE("keys " + std::to_string(n_keys));
      check_against_reference(make_problem(4, n_keys, 64, 64, DType::kF16));
      Problem p = make_problem(31, n_keys, 24, 24, DType::kBF16);
      make_causal(p);
      check_against_reference(p);
      make_ragged(p);
      check_against_reference(p);
    }
  });
}

TEST(Attention, AgreesWithDoubleForEveryNumberOfRows) {
  on_every_target([] {
    for (size_t n_rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 23, 24, 25, 29}) {
      SCOPED_TRACE("rows " + std::to_string(n_rows));
      Problem p = make_problem(n_rows, 90, 64, 64, DType::kF16);
      make_causal(p);
      check_against_reference(p);
    }
  });
}

TEST(Attention, KeyAndValueDimensionsMayDiffer) {
  on_every_target([] {
    check_against_reference(make_problem(3, 70, 192, 128, DType::kF16));
    check_against_reference(make_problem(14, 70, 32, 100, DType::kF32));
    check_against_reference(make_problem(2, 70, 576, 512, DType::kBF16));
    check_against_reference(make_problem(13, 40, 576, 576, DType::kF16));
  });
}

TEST(Attention, ScoresAreCapped) {
  on_every_target([] {
    for (float cap : {2.0f, 50.0f}) {
      Problem p = make_problem(9, 100, 48, 48, DType::kF16);
      p.softcap = cap;
      p.scale = 1.0f;  // scores of about 14, so that the small cap bites
      make_causal(p);
      check_against_reference(p);
    }
  });
}

TEST(Attention, ARowHasTheSameBitsAloneAndAmongOthers) {
  on_every_target([] {
    for (size_t dim : {8, 64, 80, 256}) {
      for (size_t n_rows : {4, 8, 27}) {
        for (DType dtype : kTypes) {
          Problem p = make_problem(n_rows, 150, dim, dim, dtype);
          for (void (*shape)(Problem&) : {+[](Problem&) {}, make_causal, +[](Problem& q) { make_window(q, 70); },
                                          make_ragged}) {
            shape(p);
            const Result together = run(p);
            Result alone(p.n_rows, p.value_dim);
            for (size_t i = 0; i < p.n_rows; ++i) attend(p.queries(i, 1), p.keys(i), alone.triple(i));
            EXPECT_TRUE(together.same_bits(alone)) << "dim " << dim << " rows " << n_rows;
          }
        }
      }
    }
  });
}

TEST(Attention, ManyRowsAreCutIntoPassesWithoutATrace) {
  on_every_target([] {
    Problem p = make_problem(1000, 70, 64, 64, DType::kF16);
    make_causal(p);
    const Result together = run(p);
    Result apart(p.n_rows, p.value_dim);
    for (size_t i = 0, n; i < p.n_rows; i += n) {
      n = std::min<size_t>(1 + i % 13, p.n_rows - i);
      attend(p.queries(i, n), p.keys(i), apart.triple(i));
    }
    EXPECT_TRUE(together.same_bits(apart));
  });
}

/// Attends keys [0, cut) and [cut, n_keys) of the problem one after the other.
Result run_in_two(const Problem& p, uint32_t cut) {
  Result result(p.n_rows, p.value_dim);
  std::vector<uint32_t> first = p.first, last = p.last;
  for (uint32_t& x : last) x = std::min(x, cut);
  AttentionKeys keys = p.keys();
  keys.first = first.data();
  keys.last = last.data();
  attend(p.queries(), keys, result.triple());
  for (size_t i = 0; i < p.n_rows; ++i) {
    first[i] = std::max(p.first[i], cut) - cut;
    last[i] = std::max(p.last[i], cut) - cut;
  }
  keys.k += cut * keys.k_stride_bytes;
  keys.v += cut * keys.v_stride_bytes;
  attend(p.queries(), keys, result.triple());
  return result;
}

TEST(Attention, RunsCutAtAMultipleOf64KeysHaveTheSameBits) {
  on_every_target([] {
    if (active_target() == Target::kScalar) return;  // sums in double, which the triple between two runs rounds
    for (size_t dim : {40, 64, 160, 288}) {
      for (size_t n_rows : {4, 25}) {
        Problem p = make_problem(n_rows, 200, dim, dim, DType::kF16);
        make_window(p, 130);
        const Result whole = run(p);
        for (uint32_t cut : {64u, 128u, 192u}) EXPECT_TRUE(whole.same_bits(run_in_two(p, cut))) << dim << " " << cut;
      }
    }
  });
}

TEST(Attention, PartsMergeToTheWhole) {
  on_every_target([] {
    Problem p = make_problem(6, 150, 64, 64, DType::kF16);
    make_ragged(p);
    p.first[0] = 0;
    p.last[0] = 150;
    for (uint32_t cut : {1u, 50u, 149u}) {
      Result whole = run(p), left(p.n_rows, p.value_dim), right(p.n_rows, p.value_dim);
      Problem part = p;
      for (uint32_t& x : part.last) x = std::min(x, cut);
      attend(part.queries(), part.keys(), left.triple());
      part = p;
      for (uint32_t& x : part.first) x = std::max(x, cut);
      attend(part.queries(), part.keys(), right.triple());
      merge_attention(right.triple(), p.n_rows, p.value_dim, left.triple());
      for (size_t i = 0; i < p.n_rows; ++i) {
        const RowReference row = reference(p, i);
        EXPECT_EQ(left.max[i], whole.max[i]);
        EXPECT_NEAR(left.sum[i], whole.sum[i], 2 * row.weight_error * row.sum);
        for (size_t d = 0; d < p.value_dim; ++d) {
          const size_t at = i * whole.stride + d;
          EXPECT_NEAR(left.out[at], whole.out[at], 4 * row.weight_error * row.magnitude[d] * row.sum) << i << " " << d;
        }
      }
    }
  });
}

TEST(Attention, MergingWithNothingChangesNothing) {
  const Problem p = make_problem(3, 20, 16, 16, DType::kF32);
  const Result whole = run(p);
  Result result = whole, nothing(p.n_rows, p.value_dim);
  merge_attention(nothing.triple(), p.n_rows, p.value_dim, result.triple());
  EXPECT_TRUE(result.same_bits(whole));
  Result copy = whole;
  merge_attention(copy.triple(), p.n_rows, p.value_dim, nothing.triple());
  EXPECT_TRUE(nothing.same_bits(whole));
}

TEST(Attention, KeysOutOfSightHaveNoInfluenceEvenWhenTheyAreNan) {
  on_every_target([] {
    for (size_t n_rows : {6, 30}) {
      for (DType dtype : kTypes) {
        Problem clean = make_problem(n_rows, 100, 24, 24, dtype);
        make_window(clean, 50);
        // Key 80 is seen by some rows only, keys 0 to 9 by none.
        Problem dirty = clean;
        const std::vector<float> bad(24, kNan);
        for (size_t j = 0; j < 10; ++j) {
          dirty.set_key(j, bad);
          dirty.set_value(j, bad);
        }
        dirty.set_key(80, bad);
        dirty.set_value(80, std::vector<float>(24, kInf));
        const Result expected = run(clean), got = run(dirty);
        for (size_t i = 0; i < n_rows; ++i) {
          const bool sees_it = clean.first[i] <= 80 && 80 < clean.last[i];
          for (size_t d = 0; d < 24; ++d) {
            const size_t at = i * got.stride + d;
            if (sees_it) {
              EXPECT_TRUE(std::isnan(got.out[at])) << "row " << i << " hides a NaN that it sees";
            } else {
              EXPECT_EQ(got.out[at], expected.out[at]) << "row " << i;
            }
          }
        }
      }
    }
  });
}

TEST(Attention, MemoryOfUnseenKeysIsNeverRead) {
  on_every_target([] {
    for (size_t n_rows : {2, 30}) {
      Problem p = make_problem(n_rows, 90, 20, 20, DType::kF16);
      std::fill(p.first.begin(), p.first.end(), 17u);
      std::fill(p.last.begin(), p.last.end(), 83u);
      const Result expected = run(p);
      // The same rows at exactly sized allocations, addressed as if the whole run were there.
      const size_t k_offset = 17 * p.k_stride() + 20 * 2, v_offset = 17 * p.v_stride() + 20 * 2;
      const size_t bytes = 65 * p.k_stride() + 20 * 2;
      const std::vector<std::byte> k(p.k.begin() + static_cast<ptrdiff_t>(k_offset),
                                     p.k.begin() + static_cast<ptrdiff_t>(k_offset + bytes));
      const std::vector<std::byte> v(p.v.begin() + static_cast<ptrdiff_t>(v_offset),
                                     p.v.begin() + static_cast<ptrdiff_t>(v_offset + bytes));
      AttentionKeys keys = p.keys();
      keys.k = k.data();
      keys.v = v.data();
      std::vector<uint32_t> first(n_rows, 0), last(n_rows, 66);
      keys.first = first.data();
      keys.last = last.data();
      Result result(n_rows, 20);
      attend(p.queries(), keys, result.triple());
      for (size_t i = 0; i < n_rows; ++i) {
        for (size_t d = 0; d < 20; ++d) {
          const size_t at = i * result.stride + d;
          EXPECT_NEAR(result.out[at], expected.out[at], 1e-4 * expected.sum[i]);
        }
      }
    }
  });
}

TEST(Attention, RowsWithoutKeysBecomeZero) {
  on_every_target([] {
    Problem p = make_problem(9, 40, 16, 16, DType::kF32);
    std::fill(p.last.begin(), p.last.end(), 0u);
    p.first[3] = p.last[3] = 20;
    p.first[4] = 30;  // a range that ends before it starts is empty too
    p.last[4] = 20;
    Result result = run(p);
    EXPECT_TRUE(result.same_bits(Result(9, 16)));
    const std::vector<float> sinks(9, 1.0f);
    finish_attention(result.triple(), 9, 16, sinks.data());
    EXPECT_TRUE(std::all_of(result.out.begin(), result.out.end(), [](float x) { return x == 0 || x == 42; }));
  });
}

TEST(Attention, InfiniteScores) {
  on_every_target([] {
    for (size_t n_rows : {1, 20}) {
      Problem p = make_problem(n_rows, 80, 16, 16, DType::kF32);
      std::fill(p.q.begin(), p.q.end(), 1.0f);
      for (size_t j = 0; j < 80; ++j) p.set_key(j, std::vector<float>(16, -kInf));
      Result nothing = run(p);
      finish_attention(nothing.triple(), n_rows, 16, nullptr);
      for (size_t i = 0; i < n_rows; ++i) EXPECT_EQ(nothing.out[i * nothing.stride], 0.0f) << "all scores are -inf";
      p.set_key(70, std::vector<float>(16, 0.5f));
      Result one = run(p);
      finish_attention(one.triple(), n_rows, 16, nullptr);
      for (size_t i = 0; i < n_rows; ++i) {
        for (size_t d = 0; d < 16; ++d) EXPECT_EQ(one.out[i * one.stride + d], p.v_values[70 * 16 + d]);
      }
    }
  });
}

TEST(Attention, ANanInOneQueryStaysInItsRow) {
  on_every_target([] {
    for (size_t n_rows : {7, 26}) {
      Problem p = make_problem(n_rows, 100, 64, 64, DType::kF16);
      const Result clean = run(p);
      p.q[5 * p.q_stride() + 3] = kNan;
      const Result got = run(p);
      for (size_t i = 0; i < n_rows; ++i) {
        for (size_t d = 0; d < 64; ++d) {
          const size_t at = i * got.stride + d;
          if (i == 5) {
            EXPECT_TRUE(std::isnan(got.out[at]));
          } else {
            EXPECT_EQ(got.out[at], clean.out[at]);
          }
        }
      }
    }
  });
}

TEST(Attention, ASinkTakesItsShare) {
  on_every_target([] {
    const Problem p = make_problem(4, 50, 32, 32, DType::kF32);
    const std::vector<float> sinks = {-kInf, -3.0f, 2.0f, 200.0f};  // none, small, usual, overwhelming
    Result plain = run(p), result = plain;
    finish_attention(plain.triple(), 4, 32, nullptr);
    finish_attention(result.triple(), 4, 32, sinks.data());
    for (size_t i = 0; i < 4; ++i) {
      const RowReference row = reference(p, i);
      const double share = row.sum / (row.sum + std::exp(sinks[i] - row.max));
      for (size_t d = 0; d < 32; ++d) {
        const double bound = (3 * row.weight_error + 1e-6 * std::abs(sinks[i] > -100 ? sinks[i] - row.max : 0)) *
                                 row.magnitude[d] * share +
                             kSmallestNormal;
        EXPECT_NEAR(result.out[i * result.stride + d], row.out[d] * share, bound) << i << " " << d;
      }
    }
  });
}

TEST(Attention, WrongTypesAndSizesAreRefused) {
  Problem p = make_problem(1, 1, 32, 32, DType::kF32);
  Result result(1, 32);
  AttentionKeys keys = p.keys();
  keys.dtype = DType::kQ8_0;
  EXPECT_THROW(attend(p.queries(), keys, result.triple()), Error);
  AttentionQueries queries = p.queries();
  queries.head_dim = 577;
  EXPECT_THROW(attend(queries, p.keys(), result.triple()), Error);
  queries = p.queries();
  queries.value_dim = 577;
  EXPECT_THROW(attend(queries, p.keys(), result.triple()), Error);
  EXPECT_TRUE(result.same_bits(Result(1, 32)));
}

}  // namespace
}  // namespace mneme::kernels
