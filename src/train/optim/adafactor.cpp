// Adafactor (arXiv 1804.04235): the second moment of a matrix is kept as its row and column means, whose product is the
// best rank-one estimate of it.
//
// For a gradient G [m, n] at step t = 1, 2, ..., with beta = 1 - t^-decay_exponent:
//   R [m] <- beta R + (1 - beta) row means of (G^2 + eps)        C [n] <- beta C + (1 - beta) column means of (G^2 +
//   eps) V[i, j] = R[i] C[j] / mean(R)                                 U = G / sqrt(V), divided by max(1, rms(U) /
//   clip_threshold) M <- beta1 M + (1 - beta1) U (only when beta1 > 0; then U = M) W <- W (1 - rate decay) - rate scale
//   U, scale = max(least_scale, rms(W)) with scale_by_parameter, else 1
// Vectors keep the whole V.
//
// State, f32: m + n values for a matrix, n for a vector, and m n more with beta1 > 0.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/parallel.h"
#include "train/ops/vector_math.h"
#include "train/optim/optimizer.h"

namespace mneme::train {
namespace {

double root_mean_square(const float* x, size_t n) {
  constexpr size_t kBlock = 4096;
  double sum = 0;
  for (size_t i = 0; i < n; i += kBlock) sum += static_cast<double>(dot(x + i, x + i, std::min(kBlock, n - i)));
  return std::sqrt(sum / static_cast<double>(n));
}

class Adafactor : public Optimizer {
 public:
  Adafactor(Ledger& ledger, ParameterList parameters, const AdafactorOptions& options)
      : parameters_(std::move(parameters)), options_(options) {
    size_t second = 0, first = 0, largest = 0;
    for (const auto* p : parameters_) {
      slots_.push_back({second, first});
      second += p->is_matrix() ? p->rows + p->columns : p->size();
      first += p->size();
      largest = std::max(largest, p->size());
    }
    second_ = Buffer(ledger, Tag::kOptimizer, second * sizeof(float), "second moments of Adafactor");
    if (options_.beta1 > 0)
      first_ = Buffer(ledger, Tag::kOptimizer, first * sizeof(float), "first moments of Adafactor");
    update_ = Buffer(ledger, Tag::kScratch, largest * sizeof(float), "update of Adafactor");
  }

  std::string_view name() const override { return "adafactor"; }

  void update(size_t index, const StepInfo& info) override {
    Parameter<float>& p = *parameters_[index];
    const Slot slot = slots_[index];
    float* second = second_.as<float>().data() + slot.second;
    float* u = update_.as<float>().data();
    const auto beta = static_cast<float>(
        1 - std::pow(static_cast<double>(info.step) + 1, -static_cast<double>(options_.decay_exponent)));
    if (p.is_matrix()) {
      factored(p, beta, info.grad_scale, second, second + p.rows, u);
    } else {
      for (size_t i = 0; i < p.size(); ++i) {
        const float g = p.grad[i] * info.grad_scale;
        second[i] = beta * second[i] + (1 - beta) * (g * g + options_.eps);
        u[i] = g / std::sqrt(second[i]);
      }
    }
    const double size = root_mean_square(u, p.size());
    float factor = static_cast<float>(1 / std::max(1.0, size / static_cast<double>(options_.clip_threshold)));
    if (options_.beta1 > 0) {
      float* m = first_.as<float>().data() + slot.first;
      scale(m, options_.beta1, p.size(), m);
      add_scaled(u, (1 - options_.beta1) * factor, p.size(), m);
      u = m;
      factor = 1;
    }
    float rate = info.rate;
    if (options_.scale_by_parameter) {
      rate *= std::max(options_.least_scale, static_cast<float>(root_mean_square(p.value, p.size())));
    }
    if (decays(p)) scale(p.value, 1 - info.rate * options_.weight_decay, p.size(), p.value);
    add_scaled(u, -rate * factor, p.size(), p.value);
  }

  std::vector<StateView> state() override {
    std::vector<StateView> views = {{"adafactor.v", {second_.data(), second_.size()}}};
    if (first_.size() > 0) views.push_back({"adafactor.m", {first_.data(), first_.size()}});
    return views;
  }

 private:
  struct Slot {
    size_t second, first;  ///< Offsets in the buffers, in values.
  };

  void factored(const Parameter<float>& p, float beta, float grad_scale, float* r, float* c, float* u) const {
    const size_t m = p.rows, n = p.columns;
    const float share = 1 - beta, squared_scale = grad_scale * grad_scale;
    parallel_for(m, std::max<size_t>(1, 16384 / n), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const float mean = dot(p.grad + i * n, p.grad + i * n, n) * squared_scale / static_cast<float>(n);
        r[i] = beta * r[i] + share * (mean + options_.eps);
      }
    });
    // Each column's sum has one owner and a fixed order of additions.
    parallel_for(n, 16, [&](size_t begin, size_t end) {
      scale(c + begin, beta, end - begin, c + begin);
      const float weight = share * squared_scale / static_cast<float>(m);
      for (size_t i = 0; i < m; ++i) {
        add_product(p.grad + i * n + begin, p.grad + i * n + begin, weight, end - begin, c + begin);
      }
      for (size_t j = begin; j < end; ++j) c[j] += share * options_.eps;
    });
    double total = 0;
    for (size_t i = 0; i < m; ++i) total += static_cast<double>(r[i]);
    const auto mean = static_cast<float>(total / static_cast<double>(m));
    parallel_for(m, std::max<size_t>(1, 16384 / n), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const float row = grad_scale / std::sqrt(r[i] / mean);
        for (size_t j = 0; j < n; ++j) u[i * n + j] = p.grad[i * n + j] * row / std::sqrt(c[j]);
      }
    });
  }

  ParameterList parameters_;
  AdafactorOptions options_;
  std::vector<Slot> slots_;
  Buffer second_, first_, update_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adafactor(Ledger& ledger, ParameterList parameters, const AdafactorOptions& options) {
  return std::make_unique<Adafactor>(ledger, std::move(parameters), options);
}

}  // namespace mneme::train
