#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/tensor_source.h"

namespace mneme {

/// Metadata key before a matrix's name: the largest magnitude that its inputs are quantised to, f32, above zero. See
/// kernels::Matrix::input_limit.
inline constexpr std::string_view kInputLimitKey = "mneme.input_limit.";

/// What a matrix saw as inputs x [columns] while a model read some text.
struct InputStatistics {
  uint64_t n_rows = 0;             ///< Inputs seen.
  std::vector<double> squares;     ///< Sum of x_j^2.
  std::vector<double> magnitudes;  ///< Sum of |x_j|; empty when read from a file of importances.
  std::vector<float> largest;      ///< Largest |x_j|; empty as magnitudes.
  std::vector<float> gram;         ///< Sum of x_i x_j, [columns, columns]; empty when it was not asked for.

  /// Mean of x_j^2 per column: the weight of a squared error of column j in the squared error of the output.
  std::vector<float> importance() const;
};

/// Statistics of a model's matrices by name. Matrices that read the same input share an entry.
class Calibration {
 public:
  void set(const std::string& name, std::shared_ptr<InputStatistics> statistics);
  /// Null for matrices that were never used, e.g. tables that are only looked up.
  const InputStatistics* find(const std::string& name) const;
  size_t size() const { return by_name_.size(); }

  /// Throws Error(kInvalidArgument) when a matrix of `tensors` has an entry with another number of columns, or none of
  /// the matrices has one: then the statistics are those of another model.
  void check(std::span<const TensorInfo> tensors) const;

  /// Writes the sums of squares as an importance matrix in GGUF, as llama.cpp stores it (NAME.in_sum2 and NAME.counts).
  void save(const std::string& path, const std::string& text) const;
  /// Reads such a file. Throws Error.
  static Calibration load(const std::string& path);

 private:
  std::map<std::string, std::shared_ptr<InputStatistics>> by_name_;
};

}  // namespace mneme
