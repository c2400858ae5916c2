#include <algorithm>
#include <cmath>
#include <utility>

#include "base/parallel.h"
#include "eval/integer_graph.h"
#include "kernels/matmul.h"

namespace mneme::integer {
namespace {

/// Real numbers between the points. A code is its value times the scale.
class RealArithmetic {
 public:
  using Residual = float;
  using Code = float;
  using Wide = float;

  /// `rounds`: points are rounded to their steps. `ranges`: widened, or null. `trace`: takes the codes, or null.
  RealArithmetic(const Model& model, bool rounds, Ranges* ranges, PointCodes* trace)
      : model_(model), rounds_(rounds), ranges_(ranges), trace_(trace), input_(ledger_) {}

  std::vector<float> embed(std::span<const TokenId> tokens) {
    std::vector<float> x(tokens.size() * model_.width);
    const int8_t* const table = model_.table.empty() ? model_.output.codes.data() : model_.table.data();
    for (size_t t = 0; t < tokens.size(); ++t) {
      const auto token = static_cast<size_t>(tokens[t]);
      for (size_t j = 0; j < model_.width; ++j) {
        x[t * model_.width + j] = model_.table_scales[token] * static_cast<float>(table[token * model_.width + j]);
      }
    }
    note_residual(x);
    return x;
  }

  void enter(size_t layer) { layer_ = layer; }
  void leave(const std::vector<float>& x) {
    note_residual(x);
    if (ranges_ != nullptr) widen(ranges_->layers[layer_].output, x);
    if (trace_ != nullptr) trace_->output = to_residual(model_, x);
  }

  std::vector<float> norm(const Norm& norm, Point point, const std::vector<float>& x, size_t n) {
    const size_t width = model_.width;
    std::vector<float> out(n * width);
    for (size_t t = 0; t < n; ++t) {
      double squares = 0;
      for (size_t j = 0; j < width; ++j) {
        const double value = static_cast<double>(x[t * width + j]);
        squares += value * value;
      }
      const double root = std::sqrt(squares / static_cast<double>(width) + static_cast<double>(model_.norm_eps));
      for (size_t j = 0; j < width; ++j) {
        out[t * width + j] = static_cast<float>(static_cast<double>(x[t * width + j]) / root) * norm.weight[j];
      }
    }
    return round(point, std::move(out));
  }

  std::vector<float> product(const Matrix& w, const std::vector<float>& x, size_t n) {
    std::vector<float> values(w.codes.size()), y(n * w.rows);
    for (size_t i = 0; i < values.size(); ++i) values[i] = w.scales[i / w.columns] * static_cast<float>(w.codes[i]);
    input_.set(x.data(), n, w.columns);
    const kernels::Matrix matrix{DType::kF32, kernels::Layout::kPlain, w.rows, w.columns,
                                 reinterpret_cast<const std::byte*>(values.data())};
    kernels::matmul(matrix, input_, nullptr, y.data(), w.rows);
    return y;
  }

  std::vector<float> rotate(std::vector<float> x, Point point, size_t n) {
    const size_t dim = model_.head_dim, n_heads = x.size() / (n * dim), pairs = model_.n_pairs;
    for (size_t i = 0; i < n * n_heads; ++i) {
      for (size_t p = 0; p < pairs; ++p) {
        const float angle = static_cast<float>(i / n_heads) * model_.frequency[p];
        const float c = std::cos(angle), s = std::sin(angle);
        float& first = x[i * dim + (model_.interleaved ? 2 * p : p)];
        float& second = x[i * dim + (model_.interleaved ? 2 * p + 1 : p + pairs)];
        const float a = first, b = second;
        first = a * c - b * s;
        second = a * s + b * c;
      }
    }
    return round(point, std::move(x));
  }

  std::vector<float> code(std::vector<float> x, Point point) { return round(point, std::move(x)); }

  std::vector<float> attend(const Layer&, const std::vector<float>& q, const std::vector<float>& k,
                            const std::vector<float>& v, size_t n) {
    const size_t dim = model_.head_dim, shared = model_.n_heads / model_.n_kv_heads, kv_width = model_.n_kv_heads * dim;
    const float scale = 1 / std::sqrt(static_cast<float>(dim));
    std::vector<float> out(q.size());
    parallel_dynamic(n, [&](size_t t) {
      std::vector<float> scores(t + 1);
      for (size_t h = 0; h < model_.n_heads; ++h) {
        const float* const query = q.data() + (t * model_.n_heads + h) * dim;
        float* const to = out.data() + (t * model_.n_heads + h) * dim;
        const size_t kv = h / shared * dim;
        for (size_t s = 0; s <= t; ++s) {
          const float* const key = k.data() + s * kv_width + kv;
          float sum = 0;
          for (size_t j = 0; j < dim; ++j) sum += query[j] * key[j];
          scores[s] = sum * scale;
        }
        const float largest = *std::max_element(scores.begin(), scores.end());
        float total = 0;
        for (float& score : scores) total += score = std::exp(score - largest);
        for (size_t s = 0; s <= t; ++s) {
          const float* const value = v.data() + s * kv_width + kv;
          for (size_t j = 0; j < dim; ++j) to[j] += scores[s] / total * value[j];
        }
      }
    });
    return round(Point::kAttended, std::move(out));
  }

  std::vector<float> gate(const Layer&, std::vector<float> gate, const std::vector<float>& up) {
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    return round(Point::kHidden, std::move(gate));
  }

  void add(const std::vector<float>& y, std::vector<float>& x) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
    note_residual(x);
  }

  static std::vector<int32_t> to_residual(const Model& model, const std::vector<float>& x) {
    std::vector<int32_t> out(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const double units = std::ldexp(static_cast<double>(x[i]), model.residual_bits);
      out[i] = static_cast<int32_t>(std::lround(std::clamp(units, -2147483647.0, 2147483647.0)));
    }
    return out;
  }

 private:
  static void widen(float& range, const std::vector<float>& x) {
    for (const float value : x) range = std::max(range, std::abs(value));
  }
  void note_residual(const std::vector<float>& x) {
    if (ranges_ != nullptr) widen(ranges_->residual, x);
  }

  std::vector<float> round(Point point, std::vector<float> x) {
    const auto of = [&](auto& ranges) -> auto& {
      return point == Point::kLast ? ranges.last : ranges.layers[layer_].points[static_cast<size_t>(point)];
    };
    if (ranges_ != nullptr) widen(of(*ranges_), x);
    if (!rounds_) return x;
    const float scale = scale_of(of(model_.ranges));
    for (float& value : x) value = std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f);
    if (trace_ != nullptr && point != Point::kLast) {
      trace_->codes[static_cast<size_t>(point)].assign(x.begin(), x.end());
    }
    for (float& value : x) value *= scale;
    return x;
  }

  const Model& model_;
  bool rounds_;
  Ranges* ranges_;
  PointCodes* trace_;
  size_t layer_ = 0;
  Ledger ledger_;
  kernels::MatmulInput input_;
};

std::vector<float> logits(RealArithmetic& a, const Model& model, std::span<const TokenId> window, size_t first) {
  const std::vector<float> all = run_layers(a, model, window);
  const size_t n = window.size() - first;
  const std::vector<float> x(all.begin() + static_cast<long>((first - 1) * model.width),
                             all.end() - static_cast<long>(model.width));
  return a.product(model.output, a.norm(model.last_norm, Point::kLast, x, n), n);
}

}  // namespace

PointCodes simulated_layer(const Model& model, size_t layer, std::span<const int32_t> x) {
  PointCodes out;
  RealArithmetic a(model, true, nullptr, &out);
  std::vector<float> rows(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    rows[i] = static_cast<float>(std::ldexp(static_cast<double>(x[i]), -model.residual_bits));
  }
  run_layer(a, model.layers[layer], layer, x.size() / model.width, rows);
  return out;
}

std::vector<float> simulated_logits(const Model& model, std::span<const TokenId> window, size_t first) {
  check_window(model, window, first);
  RealArithmetic a(model, true, nullptr, nullptr);
  return logits(a, model, window, first);
}

void widen_ranges(const Model& model, std::span<const TokenId> window, Ranges& ranges) {
  check_window(model, window, 1);
  RealArithmetic a(model, false, &ranges, nullptr);
  if (window.size() > 1) {
    (void)logits(a, model, window, 1);
  } else {
    (void)run_layers(a, model, window);
  }
}

}  // namespace mneme::integer
