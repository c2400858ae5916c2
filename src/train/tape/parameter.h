#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/checked_math.h"
#include "budget/buffer.h"
#include "tensor/tensor.h"

namespace mneme::train {

/// What a parameter does in the model; optimisers treat roles differently.
enum class Role : uint8_t { kEmbedding, kHead, kNorm, kAttention, kFeedForward, kAdapter, kRouter, kStep };

/// One matrix or vector of a trained model and its gradient, [rows, columns]; vectors have one row.
template <typename T>
struct Parameter {
  std::string name;
  Role role = Role::kNorm;
  size_t rows = 0, columns = 0;
  T* value = nullptr;
  T* grad = nullptr;    ///< Memory of an executor that trains; null before.
  bool frozen = false;  ///< No gradient and no update.
  /// A matrix in a stored form; then `value` is null and products read this. Frozen ones lie in a file.
  TensorView packed;
  std::byte* stored = nullptr;  ///< Of a packed matrix that is trained: its bytes, to be written by updates.
  /// True once the gradient buffer holds a contribution of this step; the next one is added to it.
  bool grad_started = false;

  size_t size() const { return rows * columns; }
  bool is_matrix() const { return rows > 1 && columns > 1; }
  bool is_packed() const { return packed.data != nullptr; }
};

/// All parameters of a model in creation order, their values in one buffer.
template <typename T>
class ParameterSet {
 public:
  /// Adds a parameter; pointers stay valid. Call allocate() after the last one.
  Parameter<T>& add(std::string name, Role role, size_t rows, size_t columns);
  /// Takes the memory of the values under Tag::kWeights; packed parameters have none. With `bf16` matrices that are
  /// trained are packed as bfloat16, adapters excepted. Throws Error(kOutOfBudget).
  void allocate(Ledger& ledger, bool bf16 = false);

  std::deque<Parameter<T>>& all() { return parameters_; }
  const std::deque<Parameter<T>>& all() const { return parameters_; }
  /// The parameter of that name, or null.
  Parameter<T>* find(const std::string& name);
  size_t n_values() const;
  /// Values of those that are not frozen.
  size_t n_trained() const;
  /// Forgets the gradients of the last step.
  void start_step();

 private:
  void store_bf16(Ledger& ledger);

  std::deque<Parameter<T>> parameters_;
  Buffer values_, stored_;
};

/// Row `i` of a parameter, packed or not.
template <typename T>
void copy_row(const Parameter<T>& parameter, size_t i, T* out);
/// Sets row `i` of a parameter that is not frozen, rounded to the nearest that its stored form has.
template <typename T>
void set_row(Parameter<T>& parameter, size_t i, const T* row);

/// Values that an array takes in a buffer of several, so that the next one starts aligned.
template <typename T>
size_t padded_values(const Parameter<T>& parameter) {
  constexpr size_t kAlignBytes = 64;
  return round_up(parameter.size(), kAlignBytes / sizeof(T));
}

extern template void copy_row(const Parameter<float>&, size_t, float*);
extern template void copy_row(const Parameter<double>&, size_t, double*);
extern template void set_row(Parameter<float>&, size_t, const float*);
extern template void set_row(Parameter<double>&, size_t, const double*);
extern template class ParameterSet<float>;
extern template class ParameterSet<double>;

}  // namespace mneme::train
