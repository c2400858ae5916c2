#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "base/philox.h"
#include "context/kv_layer.h"

namespace mneme {

/// Random rows of a sequence and the attention over them in double: what tests and claims feed stores with.
struct KvExample {
  KvShape shape;
  size_t n_heads, n_tokens;
  std::vector<float> q, k, v;
  TokenRole role = TokenRole::kGiven;
  std::shared_ptr<const RopeSpec> rope;  ///< Null: positions do not matter. See rotate().
  RopeAngles angles;

  KvExample(KvShape s, size_t heads, size_t tokens) : shape(s), n_heads(heads), n_tokens(tokens) {
    PhiloxStream random(11);
    q.resize(tokens * heads * s.key_dim);
    k.resize(tokens * s.n_kv_heads * s.key_dim);
    v.resize(tokens * s.n_kv_heads * s.value_dim);
    for (auto* values : {&q, &k, &v}) {
      for (float& x : *values) x = random.next_normal();
    }
  }

  KvRows rows(size_t first, size_t n) const {
    const size_t ks = shape.n_kv_heads * shape.key_dim, vs = shape.n_kv_heads * shape.value_dim;
    return {k.data() + first * ks, v.data() + first * vs, ks, vs, n, rope ? &angles : nullptr, first};
  }

  KvQueries queries(size_t first) const {
    const size_t qs = n_heads * shape.key_dim;
    return {q.data() + first * qs, qs, n_heads, 1 / std::sqrt(static_cast<float>(shape.key_dim)), 0, nullptr, role};
  }

  /// Gives the tokens positions from 0 on: stores rotate the keys from now on. Queries are taken to be rotated.
  void rotate(const RopeSpec& spec) {
    rope = std::make_shared<const RopeSpec>(spec);
    std::vector<int32_t> positions(n_tokens);
    std::iota(positions.begin(), positions.end(), 0);
    angles = RopeAngles(*rope, positions);
  }
  /// The keys as queries meet them.
  std::vector<float> rotated_keys() const {
    std::vector<float> out = k;
    for (size_t t = 0; rope && t < n_tokens; ++t) {
      angles.rotate(out.data() + t * shape.n_kv_heads * shape.key_dim, shape.n_kv_heads, shape.key_dim, t);
    }
    return out;
  }

  std::vector<double> reference() const {
    std::vector<double> out(n_tokens * n_heads * shape.value_dim);
    for (size_t t = 0; t < n_tokens; ++t) {
      for (size_t h = 0; h < n_heads; ++h) {
        const size_t kv = h / (n_heads / shape.n_kv_heads);
        const size_t first = shape.window > 0 && t + 1 > shape.window ? t + 1 - shape.window : 0;
        std::vector<double> p;
        double sum = 0;
        for (size_t j = first; j <= t; ++j) {
          double dot = 0;
          for (size_t d = 0; d < shape.key_dim; ++d) {
            dot += static_cast<double>(q[(t * n_heads + h) * shape.key_dim + d]) *
                   k[(j * shape.n_kv_heads + kv) * shape.key_dim + d];
          }
          p.push_back(std::exp(dot / std::sqrt(static_cast<double>(shape.key_dim))));
          sum += p.back();
        }
        for (size_t j = first; j <= t; ++j) {
          for (size_t d = 0; d < shape.value_dim; ++d) {
            out[(t * n_heads + h) * shape.value_dim + d] +=
                p[j - first] / sum * v[(j * shape.n_kv_heads + kv) * shape.value_dim + d];
          }
        }
      }
    }
    return out;
  }

  size_t width() const { return n_heads * shape.value_dim; }

  /// Attention of the n tokens from `first` on, which the store gets in one call: [n, width()].
  std::vector<float> feed(KvLayer& store, size_t first, size_t n) const {
    std::vector<float> out(n * width());
    store.reserve(n);
    store.extend(rows(first, n), queries(first), out.data(), width());
    return out;
  }

  /// All tokens in calls of chunks[0], chunks[1], ... tokens, again and again: [n_tokens, width()].
  std::vector<float> run(KvLayer& store, const std::vector<size_t>& chunks) const {
    std::vector<float> out;
    size_t first = 0;
    for (size_t i = 0; first < n_tokens; ++i) {
      const size_t n = std::min(chunks[i % chunks.size()], n_tokens - first);
      const std::vector<float> part = feed(store, first, n);
      out.insert(out.end(), part.begin(), part.end());
      first += n;
    }
    return out;
  }
};

/// Keys with a few large, nearly constant channels, as large models have them (6 of mean 6 to 11 and deviation 1.5, the others of
/// lognormal size), and queries that look for one of the keys before them. One head of 128 channels.
inline KvExample outlier_example(size_t n_tokens) {
  KvExample e({1, 128, 128, 0}, 1, n_tokens);
  PhiloxStream random(7);
  std::vector<float> mean(128, 0.0f), deviation(128);
  for (float& d : deviation) d = std::exp(0.5f * random.next_normal()) * 0.5f;
  for (size_t i = 0; i < 6; ++i) {
    mean[i * 21] = (i % 2 == 0 ? 1.0f : -1.0f) * (6 + static_cast<float>(i));
    deviation[i * 21] = 1.5f;
  }
  for (size_t t = 0; t < n_tokens; ++t) {
    for (size_t c = 0; c < 128; ++c) e.k[t * 128 + c] = mean[c] + deviation[c] * e.k[t * 128 + c];
  }
  for (size_t t = 0; t < n_tokens; ++t) {
    const size_t target = t * 2654435761u % (t + 1);
    for (size_t c = 0; c < 128; ++c) {
      e.q[t * 128 + c] = 0.3f * e.q[t * 128 + c] + 0.75f * (e.k[target * 128 + c] - mean[c]) / deviation[c];
    }
  }
  return e;
}

/// Keys as hidden states make them: few directions before RoPE, and neighbours alike. The hidden state of 256 channels is an
/// autoregression (`memory` a token) with sizes (i + 1)^-0.85, keys and queries are random projections of it; `seed` draws the text,
/// the projections are always the same.
inline KvExample hidden_state_example(KvShape shape, size_t n_heads, size_t n_tokens, uint64_t seed,
                                      float memory = 0.98f) {
  constexpr size_t kWidth = 256;
  KvExample e(shape, n_heads, n_tokens);
  const size_t channels = shape.n_kv_heads * shape.key_dim;
  PhiloxStream weights(3), random(seed, 5);
  std::vector<float> projection(kWidth * channels), hidden(kWidth), size(kWidth);
  for (float& w : projection) w = weights.next_normal();
  for (size_t i = 0; i < kWidth; ++i) {
    size[i] = std::pow(static_cast<float>(i + 1), -0.85f);
    hidden[i] = random.next_normal();
  }
  for (size_t t = 0; t < n_tokens; ++t) {
    float* const key = e.k.data() + t * channels;
    std::fill_n(key, channels, 0.0f);
    for (size_t i = 0; i < kWidth; ++i) {
      hidden[i] = memory * hidden[i] + std::sqrt(1 - memory * memory) * random.next_normal();
      for (size_t c = 0; c < channels; ++c) key[c] += size[i] * hidden[i] * projection[i * channels + c];
    }
  }
  RopeParameters parameters;
  parameters.n_rot = shape.key_dim;
  e.rotate(make_rope(parameters));
  return e;
}

/// hidden_state_example() of one kv head, two query heads and 128 channels, with 20 tokens in it whose keys have nothing to do
/// with their neighbours'. Every query looks for one token: one of those (`for_odd`) or any other.
struct OddTokensExample {
  KvExample example;
  std::vector<size_t> odd;

  OddTokensExample(size_t n_tokens, bool for_odd) : example(hidden_state_example({1, 128, 128, 0}, 2, n_tokens, 1)) {
    constexpr size_t kDim = 128;
    const auto norm = [](const float* x) {
      double sum = 0;
      for (size_t c = 0; c < kDim; ++c) sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
      return static_cast<float>(std::sqrt(sum));
    };
    PhiloxStream random(21);
    const size_t step = (n_tokens - 200) / 20;
    for (size_t i = 0; i < 20; ++i) {
      odd.push_back(50 + i * step + random.next_below(static_cast<uint32_t>(step)));
      float* const key = example.k.data() + odd.back() * kDim;
      const float size = norm(key);
      for (size_t c = 0; c < kDim; ++c) key[c] = random.next_normal();
      const float factor = size / norm(key);
      for (size_t c = 0; c < kDim; ++c) key[c] *= factor;
    }
    const std::vector<float> keys = example.rotated_keys();
    for (size_t t = 0; t < n_tokens; ++t) {
      const size_t target = for_odd ? odd[t % odd.size()] : t * 2654435761u % (n_tokens - 150);
      const float* const key = keys.data() + target * kDim;
      const float size = norm(key), factor = 10 * std::sqrt(static_cast<float>(kDim)) / (size * size);  // a logit of 10
      for (size_t i = 0; i < 2 * kDim; ++i) example.q[t * 2 * kDim + i] = factor * key[i % kDim];
    }
  }
};

/// |out - want| / |want| over everything that two stores give for the same sequence.
inline double relative_difference(const std::vector<float>& out, const std::vector<float>& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double d = static_cast<double>(out[i]) - static_cast<double>(want[i]);
    error += d * d;
    size += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(error / size);
}

/// Outputs of tokens [first, first + n) of the example, fed one by one as generated ones.
inline std::vector<float> generate(KvExample example, KvLayer& store, size_t first, size_t n) {
  example.role = TokenRole::kGenerated;
  std::vector<float> out;
  for (size_t t = first; t < first + n; ++t) {
    const std::vector<float> row = example.feed(store, t, 1);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

}  // namespace mneme
