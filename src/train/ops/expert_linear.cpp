#include "train/ops/expert_linear.h"

#include <algorithm>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "train/ops/gemm.h"
#include "train/ops/route.h"

namespace mneme::train {

template <typename T>
ExpertLinear<T>::ExpertLinear(std::vector<std::vector<Parameter<T>*>> weights, const Options& options)
    : weights_(std::move(weights)),
      options_(options),
      columns_(weights_.at(0).at(0)->columns),
      n_experts_(weights_[0].size()) {
  for (const auto& matrices : weights_) {
    for (Parameter<T>* weight : matrices) {
      if (matrices.size() != n_experts_ || weight->columns != columns_ || weight->rows != matrices[0]->rows) {
        fail(ErrorCode::kInvalidArgument, "[expert_linear] expected {} experts of [{}, {}], found [{}, {}] in {}",
             n_experts_, matrices[0]->rows, columns_, weight->rows, weight->columns, weight->name);
      }
      this->parameters.push_back(weight);
    }
  }
}

template <typename T>
size_t ExpertLinear<T>::input_bytes(size_t n_tokens) const {
  return rounds_inputs() ? round_up<size_t>(n_tokens * options_.n_used * columns_ * sizeof(T), 64) : 0;
}

template <typename T>
size_t ExpertLinear<T>::forward_scratch_bytes(size_t n_tokens) const {
  size_t largest = 0;
  for (const auto& matrices : weights_) largest = std::max(largest, matrices[0]->size());
  return input_bytes(n_tokens) + (options_.ternary ? largest * sizeof(T) : 0);
}

template <typename T>
double ExpertLinear<T>::forward_flops(const Batch& batch) const {
  double per_row = 0;
  for (const auto& matrices : weights_) per_row += static_cast<double>(matrices[0]->size());
  return 2.0 * static_cast<double>(batch.n_tokens() * options_.n_used) * per_row;
}

template <typename T>
const T* ExpertLinear<T>::seen_input(const Call<T>& call) const {
  if (!rounds_inputs()) return call.in[0];
  T* rounded = reinterpret_cast<T*>(call.scratch);
  round_activations(options_.activations, call.in[0], call.batch->n_tokens() * options_.n_used, columns_, rounded);
  return rounded;
}

template <typename T>
typename ExpertLinear<T>::Seen ExpertLinear<T>::seen_weight(const Parameter<T>& weight, const Call<T>& call) const {
  if (!options_.ternary) return {weight.value, T{1}};
  T* codes = reinterpret_cast<T*>(call.scratch + input_bytes(call.batch->n_tokens()));
  const T scale = ternary_codes(weight.value, weight.rows, columns_, codes);
  return {codes, scale};
}

template <typename T>
template <typename Work>
void ExpertLinear<T>::for_experts(const Call<T>& call, Work work) const {
  const size_t n = call.batch->n_tokens() * options_.n_used;
  if (call.in[1] == nullptr) {
    work(0, 0, n);
    return;
  }
  const Route route = Route::of(call.in[1], call.batch->n_tokens(), options_.n_used);
  size_t first = 0;
  for (size_t e = 0; e < n_experts_; ++e) {
    const size_t end = route.first_row(e + 1);
    work(e, first, end - first);
    first = end;
  }
}

template <typename T>
void ExpertLinear<T>::forward(const Call<T>& call) {
  const T* x = seen_input(call);
  for_experts(call, [&](size_t e, size_t first, size_t n) {
    if (n == 0) return;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const Parameter<T>& w = *weights_[i][e];
      const Seen seen = seen_weight(w, call);
      gemm({n, w.rows, columns_, false, true, columns_, columns_, w.rows}, seen.scale, x + first * columns_,
           seen.weight, T{0}, call.out[i] + first * w.rows);
    }
  });
}

template <typename T>
void ExpertLinear<T>::backward(const Call<T>& call) {
  const T* x = seen_input(call);
  for_experts(call, [&](size_t e, size_t first, size_t n) {
    for (size_t i = 0; i < weights_.size(); ++i) {
      Parameter<T>& w = *weights_[i][e];
      const bool started = std::exchange(w.grad_started, true);
      if (n == 0) {
        if (!started && !w.frozen) std::fill_n(w.grad, w.size(), T{0});
        continue;
      }
      const T* dy = call.grad_out[i] + first * w.rows;
      const Seen seen = seen_weight(w, call);
      gemm({n, columns_, w.rows, false, false, w.rows, columns_, columns_}, seen.scale, dy, seen.weight,
           call.accumulate[0] || i > 0 ? T{1} : T{0}, call.grad_in[0] + first * columns_);
      if (w.frozen) continue;
      gemm({w.rows, columns_, n, true, false, w.rows, columns_, columns_}, T{1}, dy, x + first * columns_,
           started ? T{1} : T{0}, w.grad);
    }
  });
}

template class ExpertLinear<float>;
template class ExpertLinear<double>;

}  // namespace mneme::train
