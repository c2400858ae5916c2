#pragma once

#include "train/tape/op.h"

/// Ops that carry rows to the experts of a route and back; see route.h.
namespace mneme::train {

/// rows[row_of(t, k)] = x[t] for the K choices of each token. Inputs: x [n, columns], route. Output: rows [n, K
/// columns], that is [n K, columns]. Saves the route.
template <typename T>
class Gather : public Op<T> {
 public:
  Gather(size_t columns, size_t n_used) : columns_(columns), n_used_(n_used) {}
  std::string_view kind() const override { return "gather"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 2; }
  bool row_wise() const override { return false; }

 private:
  size_t columns_, n_used_;
};

/// y[t] = sum over k of w[t, k] rows[row_of(t, k)], plus s[t]. Inputs: rows [n K, columns], weights [n, K], route, and
/// s [n, columns] or nothing. Output: y. Saves rows, weights and route.
template <typename T>
class Combine : public Op<T> {
 public:
  Combine(size_t columns, size_t n_used) : columns_(columns), n_used_(n_used) {}
  std::string_view kind() const override { return "combine"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 7; }
  bool row_wise() const override { return false; }

 private:
  size_t columns_, n_used_;
};

extern template class Gather<float>;
extern template class Gather<double>;
extern template class Combine<float>;
extern template class Combine<double>;

}  // namespace mneme::train
