#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "train/tape/batch.h"
#include "train/tape/parameter.h"

namespace mneme::train {

/// Number of a value in its program. A value is a matrix [tokens of the batch, columns].
using ValueId = uint32_t;

constexpr size_t kMaxOperands = 4;

/// Pointers of one execution of an op; entries beyond the op's operands are null.
template <typename T>
struct Call {
  const Batch* batch = nullptr;
  std::array<T*, kMaxOperands> in{}, out{};
  std::array<T*, kMaxOperands> grad_in{}, grad_out{};  ///< Backward only.
  /// Whether grad_in[i] already holds a contribution, so that this one is added instead of written.
  std::array<bool, kMaxOperands> accumulate{};
  std::byte* scratch = nullptr;  ///< 64-byte aligned, as large as the op asked for.
  Rows rows{0, 0};               ///< Forward: rows to compute. Backward: always all rows.
};

/// One record of a program: what it reads and writes, what its backward needs, and both directions.
///
/// Sizes of scratch memory depend on the number of tokens only, so that a whole step can be planned ahead.
template <typename T>
class Op {
 public:
  Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;
  virtual ~Op() = default;

  virtual std::string_view kind() const = 0;
  virtual void forward(const Call<T>& call) = 0;
  virtual void backward(const Call<T>& call) = 0;

  /// Bit i: backward reads input (output) i.
  virtual uint32_t needs_inputs() const { return 0; }
  virtual uint32_t needs_outputs() const { return 0; }
  /// Bit i: output i carries no gradient (it is an auxiliary result, such as a log-sum).
  virtual uint32_t outputs_without_grad() const { return 0; }
  /// Whether row r of the outputs depends on row r of the inputs alone, so that slices of rows can be recomputed.
  virtual bool row_wise() const { return true; }
  /// True for ops whose backward computes the forward result on the way (losses); training steps skip their forward.
  virtual bool forward_in_backward() const { return false; }
  virtual size_t forward_scratch_bytes(size_t /*n_tokens*/) const { return 0; }
  virtual size_t backward_scratch_bytes(size_t /*n_tokens*/) const { return 0; }
  /// Floating-point operations of one forward over the tokens.
  virtual double forward_flops(const Batch& /*batch*/) const { return 0; }

  std::vector<ValueId> inputs, outputs;
  std::vector<Parameter<T>*> parameters;
  uint32_t layer = 0;  ///< Index of the model layer it belongs to; boundaries of recomputation.
};

/// Smallest amount of work per thread, in elements, for row loops of cheap ops.
constexpr size_t kGrainElements = 16384;

}  // namespace mneme::train
