#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/checked_math.h"
#include "budget/buffer.h"

namespace mneme::train {

/// What a parameter does in the model; optimisers treat roles differently.
enum class Role : uint8_t { kEmbedding, kHead, kNorm, kAttention, kFeedForward };

/// One trained matrix or vector and its gradient, [rows, columns]; vectors have one row.
template <typename T>
struct Parameter {
  std::string name;
  Role role;
  size_t rows, columns;
  T* value = nullptr;
  T* grad = nullptr;    ///< Memory of an executor that trains; null before.
  bool frozen = false;  ///< No gradient and no update.
  /// True once the gradient buffer holds a contribution of this step; the next one is added to it.
  bool grad_started = false;

  size_t size() const { return rows * columns; }
  bool is_matrix() const { return rows > 1 && columns > 1; }
};

/// All parameters of a model in creation order, their values in one buffer.
template <typename T>
class ParameterSet {
 public:
  /// Adds a parameter; pointers stay valid. Call allocate() after the last one.
  Parameter<T>& add(std::string name, Role role, size_t rows, size_t columns);
  /// Takes the memory of the values under Tag::kWeights. Throws Error(kOutOfBudget).
  void allocate(Ledger& ledger);

  std::deque<Parameter<T>>& all() { return parameters_; }
  const std::deque<Parameter<T>>& all() const { return parameters_; }
  /// The parameter of that name, or null.
  Parameter<T>* find(const std::string& name);
  size_t n_values() const;
  /// Forgets the gradients of the last step.
  void start_step();

 private:
  std::deque<Parameter<T>> parameters_;
  Buffer values_;
};

/// Values that an array takes in a buffer of several, so that the next one starts aligned.
template <typename T>
size_t padded_values(const Parameter<T>& parameter) {
  constexpr size_t kAlignBytes = 64;
  return round_up(parameter.size(), kAlignBytes / sizeof(T));
}

extern template class ParameterSet<float>;
extern template class ParameterSet<double>;

}  // namespace mneme::train
