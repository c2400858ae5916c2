#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "budget/ledger.h"
#include "tensor/weight_format.h"
#include "weights/metadata.h"
#include "weights/tensor_source.h"

namespace mneme {

/// What became of one tensor.
struct TensorReport {
  std::string name;
  Shape shape;
  DType from = DType::kF32, to = DType::kF32;
  uint64_t bytes_before = 0, bytes_after = 0;
  double squared_error = 0.0;  ///< Sum over the elements of (stored - original)^2.
  double squared_norm = 0.0;   ///< Sum of original^2; 0 for tensors that were copied.

  /// Root mean square of the error over that of the values.
  double relative_error() const;
};

struct TranscodeReport {
  std::vector<TensorReport> tensors;
  uint64_t file_bytes = 0;
  std::vector<std::string> notes;  ///< What was done otherwise than asked for, one line each.

  uint64_t elements() const;
  uint64_t bytes_before() const;
  uint64_t bytes_after() const;
  double bits_per_weight() const;
  /// Over all tensors that changed type.
  double relative_error() const;
};

/// Called as work goes on: input bytes done so far and the tensor in work.
using TranscodeProgress = std::function<void(uint64_t bytes_done, const std::string& tensor)>;

/// How values become codes where the format's own rule is not all. Members left out change nothing.
struct EncodeHooks {
  /// Weights of the squared error per column: one list for each slice of a stack of matrices, or none.
  std::function<std::vector<std::vector<float>>(const TensorInfo& tensor)> importance;
  /// Changes row `index` of a tensor before it is encoded; `importance` [columns] or null.
  std::function<void(const TensorInfo& tensor, uint64_t index, std::span<float> row, const float* importance, DType to)>
      prepare;
  /// Encodes a whole matrix, given as floats that may be overwritten, and returns true; or leaves it to the usual way.
  std::function<bool(const TensorInfo& tensor, std::span<float> values, DType to, std::byte* out)> whole;
  /// The encoder of a tensor that becomes a stream, or null for the type's own (WeightFormat::encoder()).
  std::function<std::unique_ptr<MatrixEncoder>(const TensorInfo& tensor, DType to)> stream;
};

/// Writes a GGUF file with the tensors of `source`, tensor i in type types[i]. Tensors that keep their type are copied;
/// the others are decoded and encoded on all threads in parts, so that memory stays small (counted in `ledger` as
/// scratch) whatever the size of a tensor. Throws Error(kUnsupported) for types that cannot be read or written and
/// Error(kInvalidArgument) for values that the new type cannot hold, naming the tensor; then no file is left.
TranscodeReport transcode(TensorSource& source, std::span<const DType> types, const Metadata& metadata,
                          const std::string& path, Ledger& ledger, const TranscodeProgress& progress = {},
                          const EncodeHooks& hooks = {});

}  // namespace mneme
