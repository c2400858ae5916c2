#include <algorithm>
#include <utility>

#include "base/parallel.h"
#include "eval/integer_graph.h"

// The pass of integers. GCC compiles this file without floating-point registers (CMakeLists.txt), so that not one
// instruction of it can be of floats.
namespace mneme::integer {
namespace {

class IntegerArithmetic {
 public:
  using Residual = int32_t;
  using Code = int8_t;
  using Wide = int32_t;

  /// `trace`: takes the codes of the layers, or null.
  explicit IntegerArithmetic(const Model& model, PointCodes* trace = nullptr) : model_(model), trace_(trace) {}

  std::vector<int32_t> embed(std::span<const TokenId> tokens) const {
    std::vector<int32_t> x(tokens.size() * model_.width);
    const int8_t* const table = model_.table.empty() ? model_.output.codes.data() : model_.table.data();
    for (size_t t = 0; t < tokens.size(); ++t) {
      const auto token = static_cast<size_t>(tokens[t]);
      for (size_t j = 0; j < model_.width; ++j) {
        x[t * model_.width + j] = requantise<int32_t>(table[token * model_.width + j], model_.table_residual[token]);
      }
    }
    return x;
  }

  void enter(size_t) {}
  void leave(const std::vector<int32_t>& x) {
    if (trace_ != nullptr) trace_->output = x;
  }

  /// Ratios to the root mean square in Q20, times the weights.
  std::vector<int8_t> norm(const Norm& norm, Point point, const std::vector<int32_t>& x, size_t n) {
    const size_t width = model_.width;
    std::vector<int8_t> out(n * width);
    parallel_for(n, 1, [&](size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) {
        const int32_t* const row = x.data() + t * width;
        int64_t largest = 0;
        for (size_t j = 0; j < width; ++j) largest = std::max(largest, row[j] < 0 ? -int64_t{row[j]} : int64_t{row[j]});
        const int drop = std::max(0, static_cast<int>(std::bit_width(static_cast<uint64_t>(largest))) - kSquaredBits);
        int64_t squares = 0;
        for (size_t j = 0; j < width; ++j) {
          const int64_t value = rounding_shift(int64_t{row[j]}, drop);
          squares += value * value;
        }
        // Four bits more of the root than of the values.
        const int64_t mean = squares / static_cast<int64_t>(width) + (model_.epsilon >> (2 * drop));
        const int64_t root = std::max<int64_t>(1, square_root(mean << 8));
        for (size_t j = 0; j < width; ++j) {
          const int64_t ratio = divide(rounding_shift(int64_t{row[j]}, drop) << (kRatioBits + 4), root);
          out[t * width + j] = requantise<int8_t>(saturate<int32_t>(ratio), norm.requantise[j]);
        }
      }
    });
    return seen(point, std::move(out));
  }

  /// Sums of products in the units that the matrix's dyadic numbers lead to.
  std::vector<int32_t> product(const Matrix& w, const std::vector<int8_t>& x, size_t n) const {
    std::vector<int32_t> y(n * w.rows);
    parallel_for(n, 1, [&](size_t begin, size_t end) {
      for (size_t r = 0; r < w.rows; ++r) {
        const int8_t* const row = w.codes.data() + r * w.columns;
        for (size_t t = begin; t < end; ++t) {
          y[t * w.rows + r] = requantise<int32_t>(dot(row, x.data() + t * w.columns, w.columns), w.requantise[r]);
        }
      }
    });
    return y;
  }

  std::vector<int8_t> rotate(const std::vector<int32_t>& x, Point point, size_t n) {
    std::vector<int8_t> out(x.size());
    const size_t dim = model_.head_dim, n_heads = x.size() / (n * dim), pairs = model_.n_pairs;
    parallel_for(n, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin * n_heads; i < end * n_heads; ++i) {
        const int16_t* const cosines = model_.cosines.data() + i / n_heads * pairs;
        const int16_t* const sines = model_.sines.data() + i / n_heads * pairs;
        const int32_t* const head = x.data() + i * dim;
        int8_t* const to = out.data() + i * dim;
        for (size_t p = 0; p < pairs; ++p) {
          const size_t first = model_.interleaved ? 2 * p : p, second = model_.interleaved ? first + 1 : first + pairs;
          const int64_t a = head[first], b = head[second];
          to[first] = saturate<int8_t>(rounding_shift(a * cosines[p] - b * sines[p], kAngleBits + kRotationBits));
          to[second] = saturate<int8_t>(rounding_shift(a * sines[p] + b * cosines[p], kAngleBits + kRotationBits));
        }
        for (size_t j = 2 * pairs; j < dim; ++j) {
          to[j] = saturate<int8_t>(rounding_shift(int64_t{head[j]}, kRotationBits));
        }
      }
    });
    return seen(point, std::move(out));
  }

  std::vector<int8_t> code(const std::vector<int32_t>& x, Point point) {
    std::vector<int8_t> out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = saturate<int8_t>(x[i]);
    return seen(point, std::move(out));
  }

  /// Softmax attention: of each query the weights, at most 2^12 and a little, and the average of the values.
  std::vector<int8_t> attend(const Layer& layer, const std::vector<int8_t>& q, const std::vector<int8_t>& k,
                             const std::vector<int8_t>& v, size_t n) {
    const size_t dim = model_.head_dim, shared = model_.n_heads / model_.n_kv_heads, kv_width = model_.n_kv_heads * dim;
    std::vector<int8_t> out(q.size());
    parallel_dynamic(n, [&](size_t t) {
      std::vector<int32_t> scores(t + 1), sums(dim);
      for (size_t h = 0; h < model_.n_heads; ++h) {
        const int8_t* const query = q.data() + (t * model_.n_heads + h) * dim;
        const size_t kv = h / shared * dim;
        for (size_t s = 0; s <= t; ++s) scores[s] = dot(query, k.data() + s * kv_width + kv, dim);
        const int32_t largest = *std::max_element(scores.begin(), scores.end());
        int32_t total = 0;
        std::fill(sums.begin(), sums.end(), 0);
        for (size_t s = 0; s <= t; ++s) {
          const int32_t e = exp_nonpositive(requantise<int32_t>(scores[s] - largest, layer.score));
          const int32_t weight = rounding_shift(e, kFraction - kWeightBits);
          if (weight == 0) continue;
          total += weight;
          const int8_t* const value = v.data() + s * kv_width + kv;
          for (size_t j = 0; j < dim; ++j) sums[j] += weight * value[j];
        }
        int8_t* const to = out.data() + (t * model_.n_heads + h) * dim;
        for (size_t j = 0; j < dim; ++j) {
          const int64_t average = divide<int64_t>(int64_t{sums[j]} << kAverageBits, total);
          to[j] = requantise<int8_t>(static_cast<int32_t>(average), layer.attended);
        }
      }
    });
    return seen(Point::kAttended, std::move(out));
  }

  std::vector<int8_t> gate(const Layer& layer, const std::vector<int32_t>& gate, const std::vector<int32_t>& up) {
    std::vector<int8_t> out(gate.size());
    parallel_for(gate.size(), 1024, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const auto silu = saturate<int32_t>(rounding_shift(int64_t{gate[i]} * sigmoid(gate[i]), kFraction));
        const auto hidden = saturate<int32_t>(rounding_shift(int64_t{silu} * up[i], kFraction));
        out[i] = requantise<int8_t>(hidden, layer.hidden);
      }
    });
    return seen(Point::kHidden, std::move(out));
  }

  void add(const std::vector<int32_t>& y, std::vector<int32_t>& x) const {
    for (size_t i = 0; i < x.size(); ++i) x[i] = saturate<int32_t>(int64_t{x[i]} + y[i]);
  }

 private:
  static constexpr int kSquaredBits = 24;  ///< Of the values whose squares the norm adds up: 2^14 of them fit.
  static_assert(2 * kSquaredBits + 8 <= 62 && kWidest <= size_t{1} << (62 - 2 * kSquaredBits));

  std::vector<int8_t> seen(Point point, std::vector<int8_t> codes) {
    if (trace_ != nullptr && point != Point::kLast) {
      trace_->codes[static_cast<size_t>(point)].assign(codes.begin(), codes.end());
    }
    return codes;
  }

  const Model& model_;
  PointCodes* trace_;
};

}  // namespace

std::vector<int32_t> integer_logits(const Model& model, std::span<const TokenId> window, size_t first) {
  check_window(model, window, first);
  IntegerArithmetic a(model);
  std::vector<int32_t> x = run_layers(a, model, window);
  const size_t n = window.size() - first;
  x.erase(x.begin() + static_cast<long>((window.size() - 1) * model.width), x.end());  // nothing follows the last token
  x.erase(x.begin(), x.begin() + static_cast<long>((first - 1) * model.width));
  return a.product(model.output, a.norm(model.last_norm, Point::kLast, x, n), n);
}

std::vector<std::vector<int32_t>> integer_residuals(const Model& model, std::span<const TokenId> window) {
  check_window(model, window, 1);
  IntegerArithmetic a(model);
  std::vector<std::vector<int32_t>> out = {a.embed(window)};
  for (size_t i = 0; i < model.layers.size(); ++i) {
    std::vector<int32_t> x = out.back();
    run_layer(a, model.layers[i], i, window.size(), x);
    out.push_back(std::move(x));
  }
  return out;
}

PointCodes integer_layer(const Model& model, size_t layer, std::span<const int32_t> x) {
  PointCodes out;
  IntegerArithmetic a(model, &out);
  std::vector<int32_t> rows(x.begin(), x.end());
  run_layer(a, model.layers[layer], layer, x.size() / model.width, rows);
  return out;
}

}  // namespace mneme::integer
