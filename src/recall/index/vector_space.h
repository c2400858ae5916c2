#pragma once

#include <span>

#include "recall/index/vector_index.h"

namespace mneme::ann {

/// Maps the three metrics to squared Euclidean distance, the one that SPANN clusters and prunes by:
///
///   l2      x -> x                         distance = d2
///   cosine  x -> x / |x|                   1 - cos  = d2 / 2
///   ip      x -> (x, sqrt(R^2 - |x|^2))    -(q . x) = (d2 - |q|^2 - R^2) / 2,  q -> (q, 0)
///
/// The last is the reduction of Bachrach et al. (RecSys 2014); R is the longest row there was when the space was made.
class VectorSpace {
 public:
  VectorSpace(Metric metric, size_t dimension, float radius = 0)
      : metric_(metric), dimension_(dimension), radius_(radius) {}

  /// Dimension of mapped vectors.
  size_t dimension() const { return dimension_ + (metric_ == Metric::kInnerProduct ? 1 : 0); }
  float radius() const { return radius_; }
  /// Whether rows are mapped to themselves.
  bool is_identity() const { return metric_ == Metric::kL2; }

  /// Throws Error(kInvalidArgument) for a row longer than R, named by `id`.
  void map_row(std::span<const float> row, std::span<float> out, uint64_t id) const;
  void map_query(std::span<const float> query, std::span<float> out) const;
  /// Distance of the metric from the squared Euclidean one of mapped vectors.
  float distance(float squared, std::span<const float> query) const;

 private:
  Metric metric_;
  size_t dimension_;
  float radius_;
};

/// Largest length of the rows [n, dimension].
float longest_row(std::span<const float> rows, size_t dimension);

}  // namespace mneme::ann
