#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/feed_forward.h"
#include "model/layers.h"
#include "model/model.h"
#include "weights/model_file.h"

namespace mneme {

/// Hands the tensors of a file to an architecture, checking each name and shape. Mismatches are collected, so that
/// finish() can report all of them together; until then the caller gets harmless empty weights.
class WeightLoader {
 public:
  /// Vectors are copied to f32, owned by `weights` and counted in `ledger`.
  WeightLoader(const ModelFile& file, Ledger& ledger, ModelWeights& weights);

  /// Names given to the functions below are prefixed with this, e.g. "blk.3.".
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  bool has(std::string_view name) const;
  /// Matrix `name`.weight of shape [outputs, inputs] with `name`.bias [outputs] when the file has one (`bias` kAny),
  /// must have one or must not.
  enum class Bias { kNone, kAny, kRequired };
  Linear linear(std::string_view name, uint64_t outputs, uint64_t inputs, Bias bias = Bias::kNone);
  /// Expert `e` of the stack `name`.weight of shape [n_experts, outputs, inputs].
  Linear expert(std::string_view name, uint64_t n_experts, uint64_t e, uint64_t outputs, uint64_t inputs);
  /// A matrix whose rows are looked up, [rows, width].
  const WeightMatrix* table(std::string_view name, uint64_t rows, uint64_t width);
  /// Rows of the matrix `name` in the file, or `least` when it is missing or has fewer (then loading it is a problem).
  uint64_t rows_of(std::string_view name, uint64_t least) const;
  /// Row `i` of a loaded matrix as floats.
  const float* row(const WeightMatrix& matrix, uint64_t i);
  /// A vector of `size` floats, `name` in full (with .weight or .bias).
  const float* vector(std::string_view name, uint64_t size);
  Norm rms_norm(std::string_view name, uint64_t size, float eps);
  Norm layer_norm(std::string_view name, uint64_t size, float eps);

  /// Throws Error(kCorruptData) that lists every missing, misshapen and left-over tensor.
  void finish() const;

 private:
  const NamedTensor* find(const std::string& full_name, const Shape& shape);
  /// The file that a tensor's bytes lie in, or null.
  const MappedFile* mapping_of(const TensorView& view) const;
  /// Gives the pages of a tensor that was copied back.
  void release_around(const TensorView& view) const;
  WeightMatrix* add_matrix(const std::string& name, const TensorView& view);

  const ModelFile& file_;
  Ledger& ledger_;
  ModelWeights& weights_;
  std::string prefix_;
  std::vector<std::string> problems_;
  std::vector<std::string> used_;
};

}  // namespace mneme
