#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "weights/calibration.h"
#include "weights/tensor_source.h"

/// AWQ (arXiv 2306.00978): weights of channels whose inputs are large matter most, and multiplying a channel by s > 1
/// before quantisation makes its relative error smaller. The inverse goes into what makes the input, so the model stays
/// the same function and products need nothing new:
///
///     W' = W diag(s),  x' = x / s,   s_j = mean|x_j|^a / sqrt(max s * min s),  a in {0, 0.05, ..., 0.95}
///
/// with the a of least output error sum_j h_j (w_rj - Q(w_rj s_j) / s_j)^2, h_j = mean x_j^2. Scales are found for the
/// inputs of attention and of the feed-forward part, which a norm makes, and for the inputs of the down projection,
/// which the rows of the up projection make.
///
/// Not here: scales of the attention output (its producer serves several heads), and the exact output error with
/// correlated channels.
namespace mneme {

/// Factors for the columns and rows of one tensor; empty: all ones.
struct TensorScales {
  std::vector<float> columns, rows;
};
using ScalesByName = std::map<std::string, TensorScales>;

/// Scales for a model whose tensor i will be stored as types[i]. Layers whose tensors or statistics are missing are
/// left alone. `progress(done, all)` counts groups of matrices.
ScalesByName awq_scales(TensorSource& source, std::span<const DType> types, const Calibration& calibration,
                        const std::function<void(size_t, size_t)>& progress);

/// The statistics of inputs that were divided by the scales of their matrices.
Calibration scaled(const Calibration& calibration, const ScalesByName& scales, std::span<const TensorInfo> tensors);

/// A source whose scaled tensors are handed out as F32.
class ScaledSource : public TensorSource {
 public:
  /// Both must outlive this.
  ScaledSource(TensorSource& source, const ScalesByName& scales);

  const Metadata& metadata() const override { return source_.metadata(); }
  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::span<const std::byte> load(size_t i) override;

 private:
  TensorSource& source_;
  const ScalesByName& scales_;
  std::vector<TensorInfo> tensors_;
  std::vector<float> values_;
};

}  // namespace mneme
