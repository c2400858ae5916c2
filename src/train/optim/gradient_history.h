#pragma once

#include <vector>

#include "train/optim/optimizer.h"

namespace mneme::train {

/// The natural gradient of Natural GaLore (arXiv 2410.16029): F^-1 g with the damped empirical Fisher matrix
/// F = lambda I + G G^T of the last s gradients G [k, s], g being the newest of them.
///
/// Because g is a column of G, F^-1 g = G c with (lambda I + G^T G) c = e_newest: no k x k matrix, and none of the
/// cancellation of Woodbury's g / lambda - G z / lambda^2, which it equals. The Gram matrix G^T G is kept and one row
/// of it renewed each time. Cost: 2 k s operations and a Cholesky decomposition of order s.
///
/// State of an array of k values: s k f32, s^2 f64 and two counters. s = 1 gives g / (lambda + |g|^2): plain GaLore up
/// to a factor, to which Adam is indifferent. So does any history while |g|^2 is far below lambda; cosine() shows it.
class GradientHistory {
 public:
  /// `sizes`: k of each array. `length`: s >= 1.
  GradientHistory(Ledger& ledger, std::vector<size_t> sizes, size_t length, float damping, bool relative);

  /// Adds g (finite) to the history of array `index`, forgetting the oldest beyond s, and replaces g by F^-1 g.
  void transform(size_t index, float* g);
  void clear(size_t index);
  size_t count(size_t index) const { return counters_.as<uint64_t>()[2 * index]; }
  /// Stored gradient `i` < count(), in no order, for a change of basis; renew_gram() afterwards.
  float* column(size_t index, size_t i);
  void renew_gram(size_t index);
  std::vector<StateView> state();

  /// Mean over the last step's arrays of cos(F^-1 g, g). 1: the history changed nothing.
  double cosine() const { return n_cosines_ > 0 ? cosine_sum_ / static_cast<double>(n_cosines_) : 1; }
  void start_step() { cosine_sum_ = 0, n_cosines_ = 0; }

 private:
  double* gram(size_t index) { return gram_.as<double>().data() + index * length_ * length_; }
  void renew_gram_row(size_t index, size_t row);

  std::vector<size_t> sizes_, offsets_;
  size_t length_;
  double damping_;
  bool relative_;
  Buffer columns_, gram_;
  Buffer counters_;  ///< Two a array: gradients stored, slot of the next one.
  double cosine_sum_ = 0;
  size_t n_cosines_ = 0;
};

/// Solves (a + lambda I) x = e_unit for a symmetric positive semidefinite a [n, n] (row stride `stride`). When rounding
/// makes the decomposition fail, lambda is raised tenfold until it does not.
void solve_damped(const double* a, size_t n, size_t stride, double lambda, size_t unit, double* x);

}  // namespace mneme::train
