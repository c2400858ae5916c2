#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "context/kv_layer.h"
#include "context/rope.h"
#include "kernels/attention_parts.h"

/// Keys, values and queries for benches of one layer with the shape of Llama 3.2 1B: 8 kv heads of 64, 32 query heads.
namespace mneme::bench {

inline constexpr KvShape kShape{8, 64, 64, 0, 32};
inline constexpr size_t kHeads = 32, kKeys = size_t{kShape.n_kv_heads} * kShape.key_dim,
                        kQueries = kHeads * kShape.key_dim;

/// Hidden states that change slowly, and their projections: neighbours are alike, keys have few directions.
class Text {
 public:
  Text() : hidden_(kWidth), keys_of_(kWidth * kKeys), queries_of_(kWidth * kQueries) {
    PhiloxStream weights(1);
    for (float& w : keys_of_) w = weights.next_normal();
    for (float& w : queries_of_) w = weights.next_normal();
    for (float& h : hidden_) h = random_.next_normal();
  }

  std::vector<float> q, k, v;

  /// Makes the next n tokens.
  void next(size_t n) {
    std::vector<float> states(n * kWidth);
    for (size_t t = 0; t < n; ++t) {
      for (size_t i = 0; i < kWidth; ++i) {
        hidden_[i] = 0.98f * hidden_[i] + 0.2f * random_.next_normal();
        states[t * kWidth + i] = hidden_[i] * std::pow(static_cast<float>(i + 1), -0.85f);
      }
    }
    k.assign(n * kKeys, 0.0f);
    q.assign(n * kQueries, 0.0f);
    v.resize(n * kKeys);
    for (float& x : v) x = random_.next_normal();
    const auto rows = [](const std::vector<float>& w, size_t dim) {
      return kernels::StoredRows{reinterpret_cast<const std::byte*>(w.data()), dim * sizeof(float), DType::kF32};
    };
    kernels::combine_rows(states.data(), kWidth, n, rows(keys_of_, kKeys), kWidth, kKeys, k.data(), kKeys);
    kernels::combine_rows(states.data(), kWidth, n, rows(queries_of_, kQueries), kWidth, kQueries, q.data(), kQueries);
  }

 private:
  static constexpr size_t kWidth = 256;
  std::vector<float> hidden_, keys_of_, queries_of_;
  PhiloxStream random_{2};
};

inline double ms_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

/// Feeds a store with the text. A copy goes on from the same place.
class Feeder {
 public:
  static constexpr size_t kPiece = 512;  ///< Most tokens of a call.

  Feeder() : out_(kPiece * kQueries) {
    RopeParameters parameters;
    parameters.n_rot = kShape.key_dim;
    parameters.base = 500000;
    rope_ = std::make_shared<const RopeSpec>(make_rope(parameters));
  }

  /// Appends n tokens that attend to nothing.
  void fill(KvLayer& store, size_t n) {
    for (size_t first = 0; first < n; first += kPiece) feed(store, std::min(kPiece, n - first), 0, TokenRole::kGiven);
  }

  /// Milliseconds of one generated token. Throws Error when the store failed.
  double step(KvLayer& store) { return feed(store, 1, kHeads, TokenRole::kGenerated); }

  /// Output of the last step, [kHeads * value_dim].
  std::vector<float> last_output() const { return {out_.begin(), out_.begin() + kQueries}; }

 private:
  double feed(KvLayer& store, size_t n, size_t n_heads, TokenRole role) {
    text_.next(n);
    std::vector<int32_t> positions(n);
    for (size_t i = 0; i < n; ++i) positions[i] = static_cast<int32_t>(position_ + i);
    const RopeAngles angles(*rope_, positions);
    for (size_t t = 0; t < n; ++t) angles.rotate(text_.q.data() + t * kQueries, kHeads, kShape.key_dim, t);
    position_ += n;
    const double ms = ms_of([&] {
      store.reserve(n);
      store.extend({text_.k.data(), text_.v.data(), kKeys, kKeys, n, &angles, 0},
                   {text_.q.data(), kQueries, n_heads, 0.125f, 0, nullptr, role}, out_.data(), kQueries);
    });
    if (!store.trouble().empty()) throw Error(ErrorCode::kIo, std::string(store.trouble()));
    return ms;
  }

  Text text_;
  std::shared_ptr<const RopeSpec> rope_;
  size_t position_ = 0;
  std::vector<float> out_;
};

}  // namespace mneme::bench
