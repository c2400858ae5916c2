#include "train/tape/parameter.h"

#include <utility>

#include "base/error.h"

namespace mneme::train {

template <typename T>
Parameter<T>& ParameterSet<T>::add(std::string name, Role role, size_t rows, size_t columns) {
  if (find(name) != nullptr)
    fail(ErrorCode::kInvalidArgument, "[parameters] expected unique names, found {} twice", name);
  return parameters_.emplace_back(Parameter<T>{std::move(name), role, rows, columns});
}

template <typename T>
void ParameterSet<T>::allocate(Ledger& ledger) {
  size_t total = 0;
  for (const auto& parameter : parameters_) total += padded_values(parameter);
  values_ = Buffer(ledger, Tag::kWeights, total * sizeof(T), "trained weights");
  size_t offset = 0;
  for (auto& parameter : parameters_) {
    parameter.value = values_.as<T>().data() + offset;
    offset += padded_values(parameter);
  }
}

template <typename T>
Parameter<T>* ParameterSet<T>::find(const std::string& name) {
  for (auto& parameter : parameters_) {
    if (parameter.name == name) return &parameter;
  }
  return nullptr;
}

template <typename T>
size_t ParameterSet<T>::n_values() const {
  size_t total = 0;
  for (const auto& parameter : parameters_) total += parameter.size();
  return total;
}

template <typename T>
void ParameterSet<T>::start_step() {
  for (auto& parameter : parameters_) parameter.grad_started = false;
}

template class ParameterSet<float>;
template class ParameterSet<double>;

}  // namespace mneme::train
