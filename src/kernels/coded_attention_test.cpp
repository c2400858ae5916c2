#include "kernels/coded_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/philox.h"
#include "kernels/cpu.h"
#include "tensor/dtype.h"

namespace mneme::kernels {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

/// A block of random keys and values, coded or as f16, and what they decode to.
struct Block {
  size_t key_dim, value_dim;
  CodedMatrix key_matrix, value_matrix;
  bool coded;
  std::vector<std::byte> keys, values;
  std::vector<float> k, v;  // decoded, [64, dim]
  std::vector<uint8_t> channels;

  Block(size_t kd, size_t vd, bool as_codes, std::vector<uint8_t> kept = {}, uint64_t seed = 21, float key_scale = 1)
      : key_dim(kd), value_dim(vd), coded(as_codes), k(64 * kd), v(64 * vd), channels(std::move(kept)) {
    PhiloxStream random(seed);
    for (float& x : k) x = key_scale * random.next_normal();
    for (float& x : v) x = random.next_normal();
    if (coded) {
      key_matrix = CodedMatrix({4, CodedFormat::Groups::kAlongLanes, CodedFormat::Scales::kFloat16, 32}, 64, kd);
      value_matrix = CodedMatrix({2, CodedFormat::Groups::kAlongLanes, CodedFormat::Scales::kFloat16, 32}, vd, 64);
      keys.resize(key_matrix.bytes());
      values.resize(value_matrix.bytes());
      key_matrix.encode({k.data(), kd, 1}, key_matrix.whole(), keys.data());
      key_matrix.decode(keys.data(), key_matrix.whole(), {k.data(), kd, 1});
      value_matrix.encode({v.data(), 1, vd}, value_matrix.whole(), values.data());
      value_matrix.decode(values.data(), value_matrix.whole(), {v.data(), 1, vd});
    } else {
      keys.resize(2 * k.size());
      values.resize(2 * v.size());
      dtype_info(DType::kF16).encode(k.data(), nullptr, keys.data(), k.size());
      dtype_info(DType::kF16).decode(keys.data(), k.data(), k.size());
      dtype_info(DType::kF16).encode(v.data(), nullptr, values.data(), v.size());
      dtype_info(DType::kF16).decode(values.data(), v.data(), v.size());
    }
  }
  BlockKeys block_keys() const {
    return {coded ? &key_matrix : nullptr, keys.data(), key_dim, channels.empty() ? nullptr : channels.data()};
  }
  BlockValues block_values() const { return {coded ? &value_matrix : nullptr, values.data()}; }
};

struct Result {
  std::vector<float> max, sum, out;
  Result(size_t n_rows, size_t dim) : max(n_rows, kNothing), sum(n_rows), out(n_rows * dim) {}
  AttentionTriple triple(size_t dim) { return {max.data(), sum.data(), out.data(), dim}; }
};

TEST(CodedAttention, MatchesAttentionOverDecodedKeysAndValues) {
  const Target before = active_target();
  for (const Target target : available_targets()) {
    set_active_target(target);
    for (const bool coded : {true, false}) {
      for (const float softcap : {0.0f, 5.0f}) {
        const size_t q_dim = 48, n_rows = 19, value_dim = 40;
        // The keys hold 32 of the 48 channels of the queries.
        std::vector<uint8_t> kept;
        for (uint8_t c = 0; c < 32; ++c) kept.push_back(static_cast<uint8_t>(c + c / 2));
        const Block block(32, value_dim, coded, kept);
        PhiloxStream random(4);
        std::vector<float> q(n_rows * q_dim);
        for (float& x : q) x = random.next_normal();
        std::vector<uint32_t> first(n_rows), last(n_rows);
        for (uint32_t r = 0; r < n_rows; ++r) {
          first[r] = r % 3 == 0 ? 0 : r;
          last[r] = r == 5 ? first[r] : r % 4 == 0 ? 64 : 40 + r % 7;
        }
        const AttentionQueries queries{q.data(), n_rows, q_dim, q_dim, value_dim, 0.2f, softcap};
        Result result(n_rows, value_dim);
        // Twice, so that the running maximum and the sums so far are part of it.
        attend_block(queries, block.block_keys(), block.block_values(), first.data(), last.data(), result.triple(value_dim));
        attend_block(queries, block.block_keys(), block.block_values(), first.data(), last.data(), result.triple(value_dim));
        std::vector<float> weights(64);
        add_block_weights(queries, block.block_keys(), first.data(), last.data(), result.max.data(), result.sum.data(),
                          weights.data());
        std::vector<double> want_weights(64);
        for (size_t r = 0; r < n_rows; ++r) {
          std::vector<double> p(64);
          double sum = 0;
          for (size_t j = first[r]; j < last[r]; ++j) {
            double score = 0;
            for (size_t c = 0; c < 32; ++c) score += static_cast<double>(q[r * q_dim + kept[c]]) * block.k[j * 32 + c];
            score *= 0.2;
            if (softcap > 0) score = softcap * std::tanh(score / softcap);
            sum += p[j] = std::exp(score);
          }
          for (size_t j = 0; j < 64 && sum > 0; ++j) want_weights[j] += p[j] / sum / 2;  // each token came twice
          for (size_t d = 0; d < value_dim; ++d) {
            double want = 0;
            for (size_t j = 0; j < 64 && sum > 0; ++j) want += p[j] / sum * block.v[j * value_dim + d];
            const float got = result.sum[r] > 0 ? result.out[r * value_dim + d] / result.sum[r] : 0.0f;
            ASSERT_NEAR(got, want, 3e-4) << target_name(target) << " row " << r << " dim " << d;
          }
        }
        for (size_t j = 0; j < 64; ++j) EXPECT_NEAR(weights[j], want_weights[j], 3e-4);
      }
    }
  }
  set_active_target(before);
}

TEST(CodedAttention, RowsDoNotDependOnTheirNeighbours) {
  const Block block(64, 64, true);
  const size_t n_rows = 37;
  PhiloxStream random(8);
  std::vector<float> q(n_rows * 64);
  for (float& x : q) x = random.next_normal();
  for (const uint32_t begin : {0u, 3u}) {  // rows that see all tokens take a way of their own
    const std::vector<uint32_t> first(n_rows, begin), last(n_rows, 64);
    Result together(n_rows, 64);
    attend_block({q.data(), n_rows, 64, 64, 64, 0.125f, 0}, block.block_keys(), block.block_values(), first.data(),
                 last.data(), together.triple(64));
    for (const size_t row : {0, 15, 16, 36}) {
      Result alone(1, 64);
      attend_block({q.data() + row * 64, 1, 64, 64, 64, 0.125f, 0}, block.block_keys(), block.block_values(), first.data(),
                   last.data(), alone.triple(64));
      EXPECT_EQ(alone.max[0], together.max[row]);
      EXPECT_EQ(alone.sum[0], together.sum[row]);
      EXPECT_TRUE(std::equal(alone.out.begin(), alone.out.end(), together.out.begin() + static_cast<long>(row * 64)));
    }
  }
}

/// Blocks whose scores grow and shrink, so that the running maximum changes inside of a batch; blocks 4 to 7 are f16 when
/// `mixed`.
struct Blocks {
  std::vector<Block> blocks;
  std::vector<BlockKeys> keys;
  std::vector<BlockValues> values;

  Blocks(size_t n_blocks, size_t key_dim, size_t value_dim, bool mixed) {
    blocks.reserve(n_blocks);
    for (size_t b = 0; b < n_blocks; ++b) {
      blocks.emplace_back(key_dim, value_dim, !mixed || b / 4 != 1, std::vector<uint8_t>{}, 40 + b,
                          b % 3 == 1 ? 3.0f : b % 3 == 2 ? 0.5f : 1.0f);
    }
    // One codec for all, as in a store.
    for (const Block& block : blocks) {
      keys.push_back(block.block_keys());
      values.push_back(block.block_values());
      if (block.coded) {
        keys.back().matrix = &blocks[0].key_matrix;
        values.back().matrix = &blocks[0].value_matrix;
      }
    }
  }
};

TEST(CodedAttention, ManyBlocksEqualOneAfterTheOther) {
  const Target before = active_target();
  for (const Target target : available_targets()) {
    set_active_target(target);
    for (const auto& [n_blocks, n_rows, key_dim, value_dim] :
         {std::array<size_t, 4>{1, 4, 64, 64}, {4, 4, 64, 64}, {6, 1, 64, 64}, {9, 19, 48, 40}, {7, 3, 80, 128}}) {
      for (const bool mixed : {false, true}) {
        SCOPED_TRACE(std::to_string(n_blocks) + " blocks, " + std::to_string(n_rows) + " rows, mixed " + std::to_string(mixed));
        const Blocks run(n_blocks, key_dim, value_dim, mixed);
        PhiloxStream random(6);
        std::vector<float> q(n_rows * key_dim);
        for (float& x : q) x = random.next_normal();
        q[key_dim / 2] = 40;  // an outlier in the first row
        const AttentionQueries queries{q.data(), n_rows, key_dim, key_dim, value_dim, 0.15f, n_blocks == 9 ? 20.0f : 0.0f};
        Result want(n_rows, value_dim), got(n_rows, value_dim);
        const std::vector<uint32_t> first(n_rows, 0), last(n_rows, 64);
        for (size_t b = 0; b < n_blocks; ++b) {
          attend_block(queries, run.keys[b], run.values[b], first.data(), last.data(), want.triple(value_dim));
        }
        attend_blocks(queries, run.keys, run.values, got.triple(value_dim));
        for (size_t r = 0; r < n_rows; ++r) {
          ASSERT_EQ(got.max[r], want.max[r]);
          ASSERT_NEAR(got.sum[r], want.sum[r], 1e-5f * want.sum[r]);
          for (size_t d = 0; d < value_dim; ++d) {
            ASSERT_NEAR(got.out[r * value_dim + d], want.out[r * value_dim + d], 1e-4f * want.sum[r]) << r << ' ' << d;
          }
        }
        Result alone(1, value_dim);
        AttentionQueries one = queries;
        one.q += (n_rows - 1) * key_dim;
        one.n_rows = 1;
        attend_blocks(one, run.keys, run.values, alone.triple(value_dim));
        EXPECT_EQ(alone.max[0], got.max[n_rows - 1]);
        EXPECT_EQ(alone.sum[0], got.sum[n_rows - 1]);
        EXPECT_TRUE(std::equal(alone.out.begin(), alone.out.end(), got.out.end() - static_cast<long>(value_dim)));
      }
    }
  }
  set_active_target(before);
}

}  // namespace
}  // namespace mneme::kernels
