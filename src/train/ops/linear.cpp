#include "train/ops/linear.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "tensor/bipolar.h"
#include "train/ops/gemm.h"
#include "train/ops/learned_steps.h"
#include "train/ops/packed_product.h"

namespace mneme::train {
namespace {

/// Bytes of n values of `size` bytes, rounded so that the next array starts aligned.
size_t room(size_t n, size_t size) {
  return round_up<size_t>(n * size, 64);
}

}  // namespace

/// Places of an op's scratch arrays; null where they are not needed.
template <typename T>
struct Linear<T>::Scratch {
  uint16_t *x16 = nullptr, *w16 = nullptr, *dy16 = nullptr;  ///< [n, columns], [widest, columns], [n, widest]
  T* weight = nullptr;                                       ///< [widest, columns]
  T* inner = nullptr;                                        ///< [2, n, rank of a term]
  size_t bytes = 0;
};

template <typename T>
Linear<T>::Linear(std::vector<Parameter<T>*> weights, GemmFormat format, const OperandRounding& rounding,
                  const WeightRounding& weight_rounding)
    : weights_(std::move(weights)),
      steps_(weights_.size(), nullptr),
      columns_(weights_.at(0)->columns),
      format_(format),
      rounding_(rounding),
      weight_rounding_(weight_rounding) {
  for (const Parameter<T>* weight : weights_) {
    if (weight->columns != columns_) {
      fail(ErrorCode::kInvalidArgument, "[linear] expected {} columns, found {} in {}", columns_, weight->columns,
           weight->name);
    }
  }
  this->parameters = weights_;
}

template <typename T>
void Linear<T>::learn_steps(size_t i, Parameter<T>* steps) {
  if (!weight_rounding_.learns_steps(columns_) || steps->size() * bipolar::kGroup != weights_.at(i)->size()) {
    fail(ErrorCode::kInvalidArgument, "[linear] expected a step for each {} values of {}, found {} for {}",
         bipolar::kGroup, weights_.at(i)->name, steps->size(), weights_.at(i)->size());
  }
  steps_[i] = steps;
  this->parameters.push_back(steps);
}

template <typename T>
void Linear<T>::add_low_rank(size_t i, const LowRank<T>& term) {
  const Parameter<T>& w = *weights_.at(i);
  if (term.a->columns != columns_ || term.b->rows != w.rows || term.b->columns != term.rank()) {
    fail(ErrorCode::kInvalidArgument, "[linear] expected factors of [{}, {}] for {}, found [{}, {}] and [{}, {}]",
         w.rows, columns_, w.name, term.b->rows, term.b->columns, term.a->rows, term.a->columns);
  }
  low_rank_.emplace_back(i, term);
  this->parameters.push_back(term.a);
  this->parameters.push_back(term.b);
}

template <typename T>
size_t Linear<T>::widest_output() const {
  size_t widest = 0;
  for (const Parameter<T>* weight : weights_) widest = std::max(widest, weight->rows);
  return widest;
}

/// Packed matrices are multiplied in T alone.
template <typename T>
bool Linear<T>::converts() const {
  return format_ == GemmFormat::kBf16 &&
         std::any_of(weights_.begin(), weights_.end(), [](const Parameter<T>* w) { return !w->is_packed(); });
}

template <typename T>
typename Linear<T>::Scratch Linear<T>::scratch_of(std::byte* memory, size_t n) const {
  Scratch s;
  const auto take = [&]<typename V>(V*& place, size_t count) {
    if (memory != nullptr) place = reinterpret_cast<V*>(memory + s.bytes);
    s.bytes += room(count, sizeof(V));
  };
  const size_t widest = widest_output();
  if (converts()) {
    take(s.x16, n * columns_);
    take(s.w16, widest * columns_);
    take(s.dy16, n * widest);
  }
  if (weight_rounding_) take(s.weight, widest * columns_);
  size_t rank = 0;
  for (const auto& [i, term] : low_rank_) rank = std::max(rank, term.rank());
  if (rank > 0) take(s.inner, 2 * n * rank);
  return s;
}

template <typename T>
size_t Linear<T>::forward_scratch_bytes(size_t n_tokens) const {
  return scratch_of(nullptr, n_tokens).bytes;
}

template <typename T>
size_t Linear<T>::backward_scratch_bytes(size_t n_tokens) const {
  return scratch_of(nullptr, n_tokens).bytes;
}

template <typename T>
double Linear<T>::forward_flops(const Batch& batch) const {
  double per_token = 0;
  for (const Parameter<T>* weight : weights_) per_token += static_cast<double>(weight->size());
  for (const auto& [i, term] : low_rank_) per_token += static_cast<double>(term.a->size() + term.b->size());
  return 2.0 * static_cast<double>(batch.n_tokens()) * per_token;
}

template <typename T>
const T* Linear<T>::seen_weight(size_t i, const Scratch& scratch) const {
  const Parameter<T>& w = *weights_[i];
  if (steps_[i] != nullptr) {
    const int bits = bipolar::bits_of(weight_rounding_.dtype);
    round_to_steps(bits, w.value, steps_[i]->value, w.rows, columns_, scratch.weight);
    return scratch.weight;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (weight_rounding_) {
      weight_rounding_.apply(w.value, w.rows, columns_, scratch.weight);
      return scratch.weight;
    }
  }
  return w.value;
}

template <typename T>
void Linear<T>::steps_gradient(size_t i, const Scratch& scratch) {
  Parameter<T>&w = *weights_[i], &steps = *steps_[i];
  const bool add = std::exchange(w.grad_started, true), add_steps = std::exchange(steps.grad_started, true);
  step_gradients(bipolar::bits_of(weight_rounding_.dtype), w.value, steps.value, w.rows, columns_, scratch.weight, add,
                 w.grad, add_steps, steps.grad);
}

template <typename T>
void Linear<T>::forward(const Call<T>& call) {
  const size_t n = call.rows.count(), first = call.rows.begin;
  const T* x = call.in[0] + first * columns_;
  const Scratch scratch = scratch_of(call.scratch, call.batch->n_tokens());
  if constexpr (std::is_same_v<T, float>) {
    if (converts()) to_operand(rounding_, ProductOperand::kXForward, x, n, columns_, scratch.x16);
  }
  for (size_t i = 0; i < weights_.size(); ++i) {
    const Parameter<T>& w = *weights_[i];
    T* y = call.out[i] + first * w.rows;
    if (w.is_packed()) {
      packed_multiply(w.packed, x, n, false, y);
      continue;
    }
    const T* seen = seen_weight(i, scratch);
    const GemmShape shape{n, w.rows, columns_, false, true, columns_, columns_, w.rows};
    if constexpr (std::is_same_v<T, float>) {
      if (format_ == GemmFormat::kBf16) {
        to_operand(rounding_, ProductOperand::kWForward, seen, w.rows, columns_, scratch.w16);
        gemm_bf16(shape, scratch.x16, scratch.w16, false, y);
        continue;
      }
    }
    gemm(shape, T{1}, x, seen, T{0}, y);
  }
  for (const auto& [i, term] : low_rank_) {
    term.forward(x, n, scratch.inner, call.out[i] + first * weights_[i]->rows);
  }
}

template <typename T>
void Linear<T>::backward(const Call<T>& call) {
  const size_t n = call.rows.count();
  const Scratch scratch = scratch_of(call.scratch, call.batch->n_tokens());
  bool x_converted = false;
  for (size_t i = 0; i < weights_.size(); ++i) {
    Parameter<T>& w = *weights_[i];
    const T* dy = call.grad_out[i];
    const bool add_dx = call.accumulate[0] || i > 0;
    const GemmShape dx{n, columns_, w.rows, false, false, w.rows, columns_, columns_};
    const GemmShape dw{w.rows, columns_, n, true, false, w.rows, columns_, columns_};
    if (w.is_packed()) {
      packed_multiply_transposed(w.packed, dy, n, add_dx, call.grad_in[0]);
      if (!w.frozen) gemm(dw, T{1}, dy, call.in[0], std::exchange(w.grad_started, true) ? T{1} : T{0}, w.grad);
      continue;
    }
    const T* seen = seen_weight(i, scratch);
    if constexpr (std::is_same_v<T, float>) {
      if (format_ == GemmFormat::kBf16) {
        to_operand(rounding_, ProductOperand::kDyForDx, dy, n, w.rows, scratch.dy16);
        to_operand(rounding_, ProductOperand::kWForDx, seen, w.rows, columns_, scratch.w16);
        gemm_bf16(dx, scratch.dy16, scratch.w16, add_dx, call.grad_in[0]);
        if (w.frozen) continue;
        if (!std::exchange(x_converted, true))
          to_operand(rounding_, ProductOperand::kXForDw, call.in[0], n, columns_, scratch.x16);
        if (rounding_.rounds(ProductOperand::kDyForDx) || rounding_.rounds(ProductOperand::kDyForDw)) {
          to_operand(rounding_, ProductOperand::kDyForDw, dy, n, w.rows, scratch.dy16);
        }
        if (steps_[i] != nullptr) {
          gemm_bf16(dw, scratch.dy16, scratch.x16, false, scratch.weight);
          steps_gradient(i, scratch);
          continue;
        }
        gemm_bf16(dw, scratch.dy16, scratch.x16, std::exchange(w.grad_started, true), w.grad);
        continue;
      }
    }
    gemm(dx, T{1}, dy, seen, add_dx ? T{1} : T{0}, call.grad_in[0]);
    if (w.frozen) continue;
    if (steps_[i] != nullptr) {
      gemm(dw, T{1}, dy, call.in[0], T{0}, scratch.weight);
      steps_gradient(i, scratch);
      continue;
    }
    gemm(dw, T{1}, dy, call.in[0], std::exchange(w.grad_started, true) ? T{1} : T{0}, w.grad);
  }
  for (const auto& [i, term] : low_rank_) {
    term.backward(call.in[0], call.grad_out[i], n, scratch.inner, call.grad_in[0]);
  }
}

template class Linear<float>;
template class Linear<double>;

}  // namespace mneme::train
