// GaLore (arXiv 2403.03507) and Natural GaLore (arXiv 2410.16029): Adam on the gradient's projection to a subspace of
// rank r that is found anew every `update_gap` steps; the weights themselves stay whole.
//
// For a matrix W [m, n] of attention or feed-forward with gradient G, at step t:
//   1. t % update_gap == 0: P [m, r] and / or Q [n, r] <- dominant singular vectors of G (subspace.h)
//   2. R = P^T G [r, n] (left), G Q [m, r] (right) or P^T G Q [r, r] (both)
//   3. Natural GaLore: R <- (lambda I + F)^-1 R with the last s values of R (gradient_history.h)
//   4. N = step of Adam for R at rate `rate`, from its moments in the subspace
//   5. W <- W (1 - rate decay) + scale * back-projection of N
// Other parameters get plain AdamW. r is at most min(m, n); with r = min(m, n) the method is Adam in a rotated basis.
//
// State of a matrix: (m r | n r | (m + n) r) f32 of bases, two moments of (r n | m r | r r) values (adam_moments.h),
// and for Natural GaLore a history of s times that. A gradient of zero at a refresh keeps the old subspace.
//
// Several micro-batches a step: R is linear in G, so the sum of the micro-batches' projections is gathered, and no whole
// gradient lives longer than its micro-batch (but those of the other parameters, which are summed whole). The subspace of
// a refresh comes from the first micro-batch alone.
//
// Not done: the online variants that learn the projection by gradient descent.
#include <algorithm>
#include <utility>

#include "train/ops/gemm.h"
#include "train/optim/adam_moments.h"
#include "train/optim/gradient_history.h"
#include "train/optim/subspace.h"

namespace mneme::train {
namespace {

class Galore : public Optimizer {
 public:
  Galore(Ledger& ledger, ParameterList parameters, const GaloreOptions& options)
      : parameters_(std::move(parameters)), options_(options) {
    ParameterList others;
    std::vector<size_t> sizes;
    size_t bases = 0, most_rows = 0, most_columns = 0, largest = 0;
    for (auto* p : parameters_) {
      if (!p->is_matrix() || (p->role != Role::kAttention && p->role != Role::kFeedForward)) {
        slots_.push_back({false, others.size(), ProjectionSide::kAuto, 0, 0, 0});
        others.push_back(p);
        continue;
      }
      Slot slot{true, sizes.size(), options_.side, std::min({options_.rank, p->rows, p->columns}), bases, 0};
      if (slot.side == ProjectionSide::kAuto)
        slot.side = p->rows < p->columns ? ProjectionSide::kLeft : ProjectionSide::kRight;
      if (slot.left()) bases += slot.rank * p->rows;
      slot.right_basis = bases;
      if (slot.right()) bases += slot.rank * p->columns;
      slots_.push_back(slot);
      sizes.push_back(projected_size(*p, slot));
      most_rows = std::max(most_rows, p->rows);
      most_columns = std::max(most_columns, p->columns);
      largest = std::max(largest, slot.rank * std::max(p->rows, p->columns));
    }
    bases_ = Buffer(ledger, Tag::kOptimizer, bases * sizeof(float), "subspaces of GaLore");
    if (options_.gather) {
      size_t values = 0;
      for (size_t i = 0; i < parameters_.size(); ++i) {
        gathered_at_.push_back(values);
        values += slots_[i].projected ? projected_size(*parameters_[i], slots_[i]) : parameters_[i]->size();
      }
      gathered_ = Buffer(ledger, Tag::kGradient, values * sizeof(float), "gathered gradients");
    }
    moments_ = std::make_unique<AdamMoments>(ledger, sizes, options_.adam.moments, "galore");
    if (options_.history > 0) {
      history_ = std::make_unique<GradientHistory>(ledger, sizes, options_.history, options_.damping,
                                                   options_.relative_damping);
    }
    finder_ = std::make_unique<SubspaceFinder>(ledger, most_rows, most_columns, options_.rank);
    largest_ = largest;
    scratch_ = Buffer(ledger, Tag::kScratch, (4 * largest + 2 * options_.rank * options_.rank) * sizeof(float),
                      "projected gradients");
    other_ = make_adamw(ledger, std::move(others), options_.adam);
  }

  std::string_view name() const override { return history_ ? "natural-galore" : "galore"; }

  void update(size_t index, const StepInfo& info) override {
    const Slot& slot = slots_[index];
    if (!slot.projected) {
      other_->update(slot.index, info);
      return;
    }
    begin(index, info);
    float* r = scratch_.as<float>().data();
    project(*parameters_[index], slot, info.grad_scale, r);
    step(index, info, r);
  }

  bool gathers() const override { return options_.gather; }

  void gather(size_t index, const StepInfo& info, MicroBatch micro) override {
    if (!gathers()) return Optimizer::gather(index, info, micro);
    const Slot& slot = slots_[index];
    Parameter<float>& p = *parameters_[index];
    float* sum = gathered_.as<float>().data() + gathered_at_[index];
    if (!slot.projected) {
      if (micro.first) std::fill_n(sum, p.size(), 0.0f);
      add(sum, p.grad, p.size(), sum);
      if (!micro.last) return;
      std::copy_n(sum, p.size(), p.grad);
      other_->update(slot.index, info);
      return;
    }
    const size_t size = projected_size(p, slot);
    if (micro.first) {
      begin(index, info);
      std::fill_n(sum, size, 0.0f);
    }
    float* r = scratch_.as<float>().data();
    project(p, slot, info.grad_scale, r);
    add(sum, r, size, sum);
    if (!micro.last) return;
    std::copy_n(sum, size, r);
    step(index, info, r);
  }

  std::vector<StateView> state() override {
    std::vector<StateView> views = {{"galore.bases", {bases_.data(), bases_.size()}}};
    for (StateView& view : moments_->state()) views.push_back(std::move(view));
    if (history_) {
      for (StateView& view : history_->state()) views.push_back(std::move(view));
    }
    for (StateView& view : other_->state()) views.push_back(std::move(view));
    return views;
  }

  std::vector<std::pair<std::string, double>> measures() const override {
    std::vector<std::pair<std::string, double>> list;
    if (history_) list.emplace_back("cosine", history_->cosine());
    return list;
  }

 private:
  struct Slot {
    bool projected;
    size_t index;  ///< In moments_ and history_, or in other_.
    ProjectionSide side;
    size_t rank;
    size_t left_basis, right_basis;  ///< P^T [rank, m] and Q^T [rank, n] in bases_.

    bool left() const { return side != ProjectionSide::kRight; }
    bool right() const { return side != ProjectionSide::kLeft; }
  };

  /// Before the first projection of a step.
  void begin(size_t index, const StepInfo& info) {
    if (history_ && std::exchange(last_step_, info.step) != info.step) history_->start_step();
    if (info.step % options_.update_gap == 0) refresh(*parameters_[index], slots_[index], info.step << 16 | index);
  }

  /// Updates a projected parameter by its gradient r in the subspace, which lies at the start of the scratch memory.
  void step(size_t index, const StepInfo& info, float* r) {
    const Slot& slot = slots_[index];
    Parameter<float>& p = *parameters_[index];
    float* change = r + largest_;
    if (history_) history_->transform(slot.index, r);
    // Adam moves a weight of zero to minus its step.
    std::fill_n(change, projected_size(p, slot), 0.0f);
    moments_->step(slot.index, adam_step_of(options_.adam, {info.step, info.rate, 1.0f}, false), r, change);
    scale(p.value, 1.0f - info.rate * options_.adam.weight_decay, p.size(), p.value);
    project_back(slot, change, p);
  }

  static size_t projected_size(const Parameter<float>& p, const Slot& slot) {
    return (slot.left() ? slot.rank : p.rows) * (slot.right() ? slot.rank : p.columns);
  }

  float* left_basis(const Slot& slot) { return bases_.as<float>().data() + slot.left_basis; }
  float* right_basis(const Slot& slot) { return bases_.as<float>().data() + slot.right_basis; }

  void project(const Parameter<float>& p, const Slot& slot, float factor, float* r) {
    const size_t m = p.rows, n = p.columns, k = slot.rank;
    if (slot.side == ProjectionSide::kRight) {
      gemm({m, k, n, false, true, n, n, k}, factor, p.grad, right_basis(slot), 0.0f, r);
      return;
    }
    float* half = slot.right() ? scratch_.as<float>().data() + 2 * largest_ : r;
    gemm({k, n, m, false, false, m, n, n}, factor, left_basis(slot), p.grad, 0.0f, half);
    if (slot.right()) gemm({k, k, n, false, true, n, n, k}, 1.0f, half, right_basis(slot), 0.0f, r);
  }

  /// W += scale * P N Q^T.
  void project_back(const Slot& slot, const float* step, Parameter<float>& p) {
    const size_t m = p.rows, n = p.columns, k = slot.rank;
    if (slot.side == ProjectionSide::kRight) {
      gemm({m, n, k, false, false, k, n, n}, options_.scale, step, right_basis(slot), 1.0f, p.value);
      return;
    }
    const float* half = step;
    if (slot.right()) {
      float* wide = scratch_.as<float>().data() + 2 * largest_;
      gemm({k, n, k, false, false, k, n, n}, 1.0f, step, right_basis(slot), 0.0f, wide);
      half = wide;
    }
    gemm({m, n, k, true, false, m, n, n}, options_.scale, left_basis(slot), half, 1.0f, p.value);
  }

  void refresh(const Parameter<float>& p, const Slot& slot, uint64_t draw) {
    if (gradient_norm(p) == 0) return;
    float* old_left = scratch_.as<float>().data() + 2 * largest_;
    float* old_right = old_left + largest_;
    if (slot.left()) {
      std::copy_n(left_basis(slot), slot.rank * p.rows, old_left);
      finder_->left(p.grad, p.rows, p.columns, slot.rank, draw, left_basis(slot));
    }
    if (slot.right()) {
      std::copy_n(right_basis(slot), slot.rank * p.columns, old_right);
      finder_->right(p.grad, p.rows, p.columns, slot.rank, draw, right_basis(slot));
    }
    if (options_.on_refresh == OnRefresh::kReset) {
      moments_->clear(slot.index);
      if (history_) history_->clear(slot.index);
    }
    if (options_.on_refresh != OnRefresh::kRotate) return;
    const size_t k = slot.rank;
    float* turn_left = scratch_.as<float>().data() + 4 * largest_;
    float* turn_right = turn_left + options_.rank * options_.rank;
    if (slot.left())
      gemm({k, k, p.rows, false, true, p.rows, p.rows, k}, 1.0f, left_basis(slot), old_left, 0.0f, turn_left);
    if (slot.right()) {
      gemm({k, k, p.columns, false, true, p.columns, p.columns, k}, 1.0f, old_right, right_basis(slot), 0.0f,
           turn_right);
    }
    float* x = scratch_.as<float>().data();
    moments_->read_first(slot.index, x);
    turn(p, slot, x);
    moments_->write_first(slot.index, x);
    if (!history_) return;
    for (size_t i = 0; i < history_->count(slot.index); ++i) turn(p, slot, history_->column(slot.index, i));
    history_->renew_gram(slot.index);
  }

  /// x <- (P_new^T P_old) x (Q_old^T Q_new), the old coordinates of a projected matrix in the new basis.
  void turn(const Parameter<float>& p, const Slot& slot, float* x) {
    const size_t k = slot.rank, rows = slot.left() ? k : p.rows, columns = slot.right() ? k : p.columns;
    float* next = scratch_.as<float>().data() + largest_;
    const float* turn_left = scratch_.as<float>().data() + 4 * largest_;
    const float* turn_right = turn_left + options_.rank * options_.rank;
    if (slot.left()) {
      gemm({k, columns, k, false, false, k, columns, columns}, 1.0f, turn_left, x, 0.0f, next);
      std::copy_n(next, rows * columns, x);
    }
    if (slot.right()) {
      gemm({rows, k, k, false, false, k, k, k}, 1.0f, x, turn_right, 0.0f, next);
      std::copy_n(next, rows * columns, x);
    }
  }

  ParameterList parameters_;
  GaloreOptions options_;
  std::vector<Slot> slots_;
  Buffer bases_, scratch_;
  Buffer gathered_;                  ///< Sums of a step: projected gradients, whole ones of other parameters.
  std::vector<size_t> gathered_at_;  ///< Of each parameter, in values.
  size_t largest_ = 0;  ///< Most values of rank x longer dimension.
  uint64_t last_step_ = ~uint64_t{0};
  std::unique_ptr<AdamMoments> moments_;
  std::unique_ptr<GradientHistory> history_;
  std::unique_ptr<SubspaceFinder> finder_;
  std::unique_ptr<Optimizer> other_;
};

}  // namespace

std::unique_ptr<Optimizer> make_galore(Ledger& ledger, ParameterList parameters, const GaloreOptions& options) {
  return std::make_unique<Galore>(ledger, std::move(parameters), options);
}

}  // namespace mneme::train
