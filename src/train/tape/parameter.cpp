#include "train/tape/parameter.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mneme::train {

template <typename T>
Parameter<T>& ParameterSet<T>::add(std::string name, Role role, size_t rows, size_t columns) {
  if (find(name) != nullptr)
    fail(ErrorCode::kInvalidArgument, "[parameters] expected unique names, found {} twice", name);
  Parameter<T>& parameter = parameters_.emplace_back();
  parameter.name = std::move(name);
  parameter.role = role;
  parameter.rows = rows;
  parameter.columns = columns;
  return parameter;
}

template <typename T>
void ParameterSet<T>::allocate(Ledger& ledger, bool bf16) {
  if (bf16) store_bf16(ledger);
  size_t total = 0;
  for (const auto& parameter : parameters_) total += parameter.is_packed() ? 0 : padded_values(parameter);
  values_ = Buffer(ledger, Tag::kWeights, total * sizeof(T), "trained weights");
  size_t offset = 0;
  for (auto& parameter : parameters_) {
    if (parameter.is_packed()) continue;
    parameter.value = values_.as<T>().data() + offset;
    offset += padded_values(parameter);
  }
}

template <typename T>
void ParameterSet<T>::store_bf16(Ledger& ledger) {
  constexpr size_t kAlignBytes = 64;
  const auto bytes = [](const Parameter<T>& p) { return round_up(p.size() * sizeof(uint16_t), kAlignBytes); };
  const auto is_stored = [](const Parameter<T>& p) { return !p.frozen && p.is_matrix() && p.role != Role::kAdapter; };
  size_t total = 0;
  for (const auto& parameter : parameters_) total += is_stored(parameter) ? bytes(parameter) : 0;
  stored_ = Buffer(ledger, Tag::kWeights, total, "trained weights in bfloat16");
  std::byte* next = stored_.data();
  for (auto& parameter : parameters_) {
    if (!is_stored(parameter)) continue;
    parameter.stored = next;
    parameter.packed = {DType::kBF16, {parameter.rows, parameter.columns}, next};
    next += bytes(parameter);
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
size_t ParameterSet<T>::n_trained() const {
  size_t total = 0;
  for (const auto& parameter : parameters_) total += parameter.frozen ? 0 : parameter.size();
  return total;
}

template <typename T>
void ParameterSet<T>::start_step() {
  for (auto& parameter : parameters_) parameter.grad_started = false;
}

template <typename T>
void copy_row(const Parameter<T>& parameter, size_t i, T* out) {
  if (!parameter.is_packed()) {
    std::copy_n(parameter.value + i * parameter.columns, parameter.columns, out);
  } else if constexpr (std::is_same_v<T, float>) {
    decode_row(parameter.packed, i, out);
  } else {
    std::vector<float> row(parameter.columns);
    decode_row(parameter.packed, i, row.data());
    std::copy(row.begin(), row.end(), out);
  }
}

template <typename T>
void set_row(Parameter<T>& parameter, size_t i, const T* row) {
  if (!parameter.is_packed()) {
    std::copy_n(row, parameter.columns, parameter.value + i * parameter.columns);
    return;
  }
  const std::vector<float> values(row, row + parameter.columns);
  const DType dtype = parameter.packed.dtype;
  dtype_info(dtype).encode(values.data(), nullptr, parameter.stored + row_bytes(dtype, parameter.columns) * i,
                           parameter.columns);
}

template void set_row(Parameter<float>&, size_t, const float*);
template void set_row(Parameter<double>&, size_t, const double*);
template void copy_row(const Parameter<float>&, size_t, float*);
template void copy_row(const Parameter<double>&, size_t, double*);
template class ParameterSet<float>;
template class ParameterSet<double>;

}  // namespace mneme::train
