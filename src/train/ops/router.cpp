#include "train/ops/router.h"

#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "train/ops/gemm.h"
#include "train/ops/route.h"

namespace mneme::train {
namespace {

/// x = softmax(x) for n values; false when that is not finite.
template <typename T>
bool softmax(T* x, size_t n) {
  const T most = *std::max_element(x, x + n);
  T sum = 0;
  for (size_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - most);
  for (size_t i = 0; i < n; ++i) x[i] /= sum;
  return std::isfinite(sum);
}

/// The n_used largest of n, the lower index first on ties.
template <typename T>
void choose(const T* p, size_t n, size_t n_used, uint32_t* chosen) {
  for (size_t k = 0; k < n_used; ++k) {
    size_t best = n;
    for (size_t e = 0; e < n; ++e) {
      if (std::find(chosen, chosen + k, e) == chosen + k && (best == n || p[e] > p[best])) best = e;
    }
    chosen[k] = static_cast<uint32_t>(best);
  }
}

double share_of(const Batch& batch) {
  return batch.loss_scale * std::accumulate(batch.weights.begin(), batch.weights.end(), 0.0);
}

}  // namespace

template <typename T>
Router<T>::Router(Parameter<T>* weight, size_t n_used, bool renormalise, double balance)
    : n_experts_(weight->rows), n_used_(n_used), renormalise_(renormalise), balance_(balance) {
  if (n_used < 1 || n_used > n_experts_) {
    fail(ErrorCode::kInvalidArgument, "[router] expected 1 to {} experts a token, found {}", n_experts_, n_used);
  }
  this->parameters = {weight};
}

template <typename T>
double Router<T>::forward_flops(const Batch& batch) const {
  return 2.0 * static_cast<double>(batch.n_tokens()) * static_cast<double>(this->parameters[0]->size());
}

template <typename T>
void Router<T>::forward(const Call<T>& call) {
  const Parameter<T>& w = *this->parameters[0];
  const size_t n = call.batch->n_tokens(), d = w.columns;
  T* weights = call.out[0];
  T* p = call.out[1];
  const Route route = Route::of(call.out[2], n, n_used_);
  gemm({n, n_experts_, d, false, true, d, d, n_experts_}, T{1}, call.in[0], w.value, T{0}, p);

  // row_of holds the chosen experts until the rows are known.
  std::vector<size_t> counts(n_experts_, 0);
  std::vector<double> sums(n_experts_, 0);
  for (size_t t = 0; t < n; ++t) {
    T* row = p + t * n_experts_;
    if (!softmax(row, n_experts_)) {
      fail(ErrorCode::kCorruptData, "[router] {}: expected finite scores, found NaN or infinity for token {}", w.name,
           t);
    }
    uint32_t* chosen = route.row_of.data() + t * n_used_;
    choose(row, n_experts_, n_used_, chosen);
    T sum = 0;
    for (size_t k = 0; k < n_used_; ++k) sum += row[chosen[k]];
    for (size_t k = 0; k < n_used_; ++k) {
      weights[t * n_used_ + k] = row[chosen[k]] / (renormalise_ ? sum : T{1});
      ++counts[chosen[k]];
    }
    for (size_t e = 0; e < n_experts_; ++e) sums[e] += static_cast<double>(row[e]);
  }
  std::vector<size_t> next(n_experts_, 0);
  std::partial_sum(counts.begin(), counts.end() - 1, next.begin() + 1);
  for (uint32_t& slot : route.row_of) {
    const size_t row = next[slot]++;
    route.expert_of[row] = slot;
    slot = static_cast<uint32_t>(row);
  }
  const auto size = static_cast<double>(n);
  shares_.resize(n_experts_);
  double product = 0;
  for (size_t e = 0; e < n_experts_; ++e) {
    shares_[e] = static_cast<double>(counts[e]) / (size * static_cast<double>(n_used_));
    product += shares_[e] * sums[e] / size;
  }
  balance_loss_ = balance_ * share_of(*call.batch) * static_cast<double>(n_experts_) * product;
}

// With dp_e the gradient of p_e from the weights and the balance: d score_e = p_e (dp_e - sum_j p_j dp_j). A weight
// that is p_e / s, s the sum over the chosen, gives dp_e = (dw_e - sum_j dw_j w_j) / s.
template <typename T>
void Router<T>::backward(const Call<T>& call) {
  Parameter<T>& w = *this->parameters[0];
  const size_t n = call.batch->n_tokens(), d = w.columns;
  const T* weights = call.out[0];
  const T* p = call.out[1];
  const Route route = Route::of(call.out[2], n, n_used_);
  std::vector<T> even(n_experts_);
  const double factor = balance_ * share_of(*call.batch) * static_cast<double>(n_experts_) /
                        (static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n_used_));
  for (size_t e = 0; e < n_experts_; ++e) {
    even[e] = static_cast<T>(factor * static_cast<double>(route.first_row(e + 1) - route.first_row(e)));
  }
  T* d_scores = reinterpret_cast<T*>(call.scratch);
  for (size_t t = 0; t < n; ++t) {
    const T* row = p + t * n_experts_;
    T* dp = d_scores + t * n_experts_;
    std::copy(even.begin(), even.end(), dp);
    T sum = 1, along = 0;
    if (renormalise_) {
      sum = 0;
      for (size_t k = 0; k < n_used_; ++k) {
        sum += row[route.expert_of[route.row_of[t * n_used_ + k]]];
        along += call.grad_out[0][t * n_used_ + k] * weights[t * n_used_ + k];
      }
    }
    for (size_t k = 0; k < n_used_; ++k) {
      dp[route.expert_of[route.row_of[t * n_used_ + k]]] += (call.grad_out[0][t * n_used_ + k] - along) / sum;
    }
    T mean = 0;
    for (size_t e = 0; e < n_experts_; ++e) mean += row[e] * dp[e];
    for (size_t e = 0; e < n_experts_; ++e) dp[e] = row[e] * (dp[e] - mean);
  }
  gemm({n, d, n_experts_, false, false, n_experts_, d, d}, T{1}, d_scores, w.value, call.accumulate[0] ? T{1} : T{0},
       call.grad_in[0]);
  if (w.frozen) return;
  gemm({n_experts_, d, n, true, false, n_experts_, d, d}, T{1}, d_scores, call.in[0],
       std::exchange(w.grad_started, true) ? T{1} : T{0}, w.grad);
}

template class Router<float>;
template class Router<double>;

}  // namespace mneme::train
