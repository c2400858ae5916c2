// Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose matrix is replaced by the nearest
// orthogonal one, for the matrices of attention and feed-forward; everything else gets AdamW.
//
//   M <- mu M + G        O = NewtonSchulz5(mu M + G), about U V^T of its singular value decomposition
//   W <- W (1 - rate decay) - rate 0.2 sqrt(max(m, n)) O
// The factor gives an update of an m x n matrix the size of an AdamW step (arXiv 2502.16982), so that one learning rate
// serves both. The iteration X <- a X + (b A + c A^2) X, A = X X^T, runs five times in f32.
//
// State: M, 4 m n bytes for a matrix; that of AdamW for the rest.
#include <algorithm>
#include <cmath>
#include <utility>

#include "train/ops/gemm.h"
#include "train/ops/vector_math.h"
#include "train/optim/optimizer.h"

namespace mneme::train {
namespace {

constexpr int kIterations = 5;
// Coefficients of the quintic: it drives singular values in (0, 1] to about 1 quickly, not exactly.
constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f;

class Muon : public Optimizer {
 public:
  Muon(Ledger& ledger, ParameterList parameters, const MuonOptions& options)
      : parameters_(std::move(parameters)), options_(options) {
    ParameterList others;
    size_t total = 0, largest = 0, largest_gram = 0;
    for (const auto& parameter : parameters_) {
      const bool orthogonal =
          parameter->is_matrix() && (parameter->role == Role::kAttention || parameter->role == Role::kFeedForward);
      slots_.push_back({orthogonal, orthogonal ? total : others.size()});
      if (!orthogonal) {
        others.push_back(parameter);
        continue;
      }
      total += parameter->size();
      const size_t small = std::min(parameter->rows, parameter->columns);
      largest = std::max(largest, parameter->size());
      largest_gram = std::max(largest_gram, small * small);
    }
    momentum_ = Buffer(ledger, Tag::kOptimizer, total * sizeof(float), "momentum of Muon");
    scratch_ = Buffer(ledger, Tag::kScratch, (2 * largest + 2 * largest_gram) * sizeof(float), "Newton-Schulz of Muon");
    largest_ = largest;
    largest_gram_ = largest_gram;
    other_ = make_adamw(ledger, std::move(others), options.other);
  }

  std::string_view name() const override { return "muon"; }

  void update(size_t index, const StepInfo& info) override {
    const Slot slot = slots_[index];
    if (!slot.orthogonal) {
      other_->update(slot.offset, info);
      return;
    }
    Parameter<float>& parameter = *parameters_[index];
    const size_t n = parameter.size();
    float* momentum = momentum_.as<float>().data() + slot.offset;
    float* x = scratch_.as<float>().data();
    scale(momentum, options_.momentum, n, momentum);
    add_scaled(parameter.grad, info.grad_scale, n, momentum);
    // Nesterov: the gradient once more on top of the decayed momentum.
    scale(momentum, options_.momentum, n, x);
    add_scaled(parameter.grad, info.grad_scale, n, x);
    orthogonalise(parameter.rows, parameter.columns, x);
    const float size = 0.2f * std::sqrt(static_cast<float>(std::max(parameter.rows, parameter.columns)));
    scale(parameter.value, 1.0f - info.rate * options_.weight_decay, n, parameter.value);
    add_scaled(x, -info.rate * size, n, parameter.value);
  }

  std::vector<StateView> state() override {
    std::vector<StateView> views = {{"muon.momentum", {momentum_.data(), momentum_.size()}}};
    for (StateView& view : other_->state()) views.push_back(std::move(view));
    return views;
  }

 private:
  struct Slot {
    bool orthogonal;
    size_t offset;  ///< Of the momentum, or the index in other_.
  };

  /// x [rows, columns] <- about U V^T of its singular value decomposition. The Gram matrix is of the smaller side.
  void orthogonalise(size_t rows, size_t columns, float* x) {
    float* next = scratch_.as<float>().data() + largest_;
    float* gram = next + largest_;
    float* polynomial = gram + largest_gram_;
    const size_t n = rows * columns;
    const bool wide = rows <= columns;
    const size_t small = wide ? rows : columns;
    const float norm = std::sqrt(dot(x, x, n)) + 1e-7f;
    scale(x, 1.0f / norm, n, x);
    for (int i = 0; i < kIterations; ++i) {
      // gram = X X^T (wide) or X^T X (tall); polynomial = b gram + c gram^2; X = a X + polynomial X (or X polynomial).
      if (wide) {
        gemm({small, small, columns, false, true, columns, columns, small}, 1.0f, x, x, 0.0f, gram);
      } else {
        gemm({small, small, rows, true, false, columns, columns, small}, 1.0f, x, x, 0.0f, gram);
      }
      scale(gram, kB, small * small, polynomial);
      gemm({small, small, small, false, false, small, small, small}, kC, gram, gram, 1.0f, polynomial);
      scale(x, kA, n, next);
      if (wide) {
        gemm({rows, columns, rows, false, false, rows, columns, columns}, 1.0f, polynomial, x, 1.0f, next);
      } else {
        gemm({rows, columns, columns, false, false, columns, columns, columns}, 1.0f, x, polynomial, 1.0f, next);
      }
      std::copy_n(next, n, x);
    }
  }

  ParameterList parameters_;
  MuonOptions options_;
  std::vector<Slot> slots_;
  Buffer momentum_, scratch_;
  size_t largest_ = 0, largest_gram_ = 0;
  std::unique_ptr<Optimizer> other_;
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(Ledger& ledger, ParameterList parameters, const MuonOptions& options) {
  return std::make_unique<Muon>(ledger, std::move(parameters), options);
}

}  // namespace mneme::train
