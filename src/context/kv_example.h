#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/philox.h"
#include "context/kv_layer.h"

namespace mneme {

/// Random rows of a sequence and the attention over them in double: what tests and claims feed stores with.
struct KvExample {
  KvShape shape;
  size_t n_heads, n_tokens;
  std::vector<float> q, k, v;

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
    return {k.data() + first * ks, v.data() + first * vs, ks, vs, n, nullptr, 0};
  }

  KvQueries queries(size_t first) const {
    const size_t qs = n_heads * shape.key_dim;
    return {q.data() + first * qs, qs, n_heads, 1 / std::sqrt(static_cast<float>(shape.key_dim))};
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

}  // namespace mneme
