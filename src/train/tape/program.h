#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "train/tape/op.h"

namespace mneme::train {

/// What happens to a value that backward needs, between its last use in forward and its first use in backward.
enum class Saving : uint8_t {
  kKeep,       ///< Stays where it is.
  kRecompute,  ///< Dropped, and computed again from kept values.
  kOffload,    ///< A first part of its rows waits in a file, the rest is dropped and computed again (arXiv 2407.12117).
};

/// One intermediate result of a program.
struct ValueInfo {
  std::string name;
  size_t columns = 0;
  uint32_t layer = 0;
  Saving saving = Saving::kKeep;
  /// kOffload: part of the rows that goes to the file. All of them, whatever this says, for outputs of ops that are not
  /// row-wise.
  double offloaded_share = 1;
};

/// A step as a linear list of op records over numbered values. The order of the list is the schedule of forward;
/// backward runs it in reverse. Every value is written by exactly one op.
template <typename T>
class Program {
 public:
  /// A new value of `columns` per token in the current layer.
  ValueId value(std::string name, size_t columns) {
    values_.push_back({std::move(name), columns, layer_});
    return static_cast<ValueId>(values_.size() - 1);
  }

  /// Appends an op made with `args`, reading `inputs`, writing `outputs`; returns it.
  template <class OpType, typename... Args>
  OpType& add(std::vector<ValueId> inputs, std::vector<ValueId> outputs, Args&&... args) {
    auto op = std::make_unique<OpType>(std::forward<Args>(args)...);
    op->inputs = std::move(inputs);
    op->outputs = std::move(outputs);
    op->layer = layer_;
    OpType& result = *op;
    ops_.push_back(std::move(op));
    return result;
  }

  /// Starts the next layer; values and ops added from now on belong to it.
  void next_layer() { ++layer_; }
  uint32_t n_layers() const { return layer_ + 1; }

  std::vector<ValueInfo>& values() { return values_; }
  const std::vector<ValueInfo>& values() const { return values_; }
  const std::vector<std::unique_ptr<Op<T>>>& ops() const { return ops_; }

 private:
  std::vector<ValueInfo> values_;
  std::vector<std::unique_ptr<Op<T>>> ops_;
  uint32_t layer_ = 0;
};

}  // namespace mneme::train
