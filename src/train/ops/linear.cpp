#include "train/ops/linear.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "train/ops/gemm.h"

namespace mneme::train {
namespace {

/// Room for n bf16 values, rounded so that the next array starts aligned.
size_t bf16_room(size_t n) { return (n + 31) / 32 * 32; }

}  // namespace

template <typename T>
Linear<T>::Linear(std::vector<Parameter<T>*> weights, GemmFormat format, const OperandRounding& rounding)
    : columns_(weights.at(0)->columns), format_(format), rounding_(rounding) {
  for (const Parameter<T>* weight : weights) {
    if (weight->columns != columns_) {
      fail(ErrorCode::kInvalidArgument, "[linear] expected {} columns, found {} in {}", columns_, weight->columns,
           weight->name);
    }
  }
  this->parameters = std::move(weights);
}

template <typename T>
size_t Linear<T>::widest_output() const {
  size_t widest = 0;
  for (const Parameter<T>* weight : this->parameters) widest = std::max(widest, weight->rows);
  return widest;
}

template <typename T>
size_t Linear<T>::forward_scratch_bytes(size_t n_tokens) const {
  if (format_ == GemmFormat::kFull) return 0;
  return (bf16_room(n_tokens * columns_) + bf16_room(widest_output() * columns_)) * sizeof(uint16_t);
}

template <typename T>
size_t Linear<T>::backward_scratch_bytes(size_t n_tokens) const {
  if (format_ == GemmFormat::kFull) return 0;
  return forward_scratch_bytes(n_tokens) + bf16_room(n_tokens * widest_output()) * sizeof(uint16_t);
}

template <typename T>
double Linear<T>::forward_flops(const Batch& batch) const {
  double n_outputs = 0;
  for (const Parameter<T>* weight : this->parameters) n_outputs += static_cast<double>(weight->rows);
  return 2.0 * static_cast<double>(batch.n_tokens()) * static_cast<double>(columns_) * n_outputs;
}

template <typename T>
void Linear<T>::forward(const Call<T>& call) {
  const size_t n = call.rows.count(), first = call.rows.begin;
  const T* x = call.in[0] + first * columns_;
  auto* x16 = reinterpret_cast<uint16_t*>(call.scratch);
  if constexpr (std::is_same_v<T, float>) {
    if (format_ == GemmFormat::kBf16) to_operand(rounding_, ProductOperand::kXForward, x, n, columns_, x16);
  }
  for (size_t i = 0; i < this->parameters.size(); ++i) {
    const Parameter<T>& w = *this->parameters[i];
    T* y = call.out[i] + first * w.rows;
    const GemmShape shape{n, w.rows, columns_, false, true, columns_, columns_, w.rows};
    if constexpr (std::is_same_v<T, float>) {
      if (format_ == GemmFormat::kBf16) {
        uint16_t* w16 = x16 + bf16_room(call.batch->n_tokens() * columns_);
        to_operand(rounding_, ProductOperand::kWForward, w.value, w.rows, columns_, w16);
        gemm_bf16(shape, x16, w16, false, y);
        continue;
      }
    }
    gemm(shape, T{1}, x, w.value, T{0}, y);
  }
}

template <typename T>
void Linear<T>::backward(const Call<T>& call) {
  const size_t n = call.rows.count();
  bool x_converted = false;
  for (size_t i = 0; i < this->parameters.size(); ++i) {
    Parameter<T>& w = *this->parameters[i];
    const T* dy = call.grad_out[i];
    const bool add_dx = call.accumulate[0] || i > 0;
    const GemmShape dx{n, columns_, w.rows, false, false, w.rows, columns_, columns_};
    const GemmShape dw{w.rows, columns_, n, true, false, w.rows, columns_, columns_};
    if constexpr (std::is_same_v<T, float>) {
      if (format_ == GemmFormat::kBf16) {
        auto* x16 = reinterpret_cast<uint16_t*>(call.scratch);
        uint16_t* w16 = x16 + bf16_room(n * columns_);
        uint16_t* dy16 = w16 + bf16_room(widest_output() * columns_);
        to_operand(rounding_, ProductOperand::kDyForDx, dy, n, w.rows, dy16);
        to_operand(rounding_, ProductOperand::kWForDx, w.value, w.rows, columns_, w16);
        gemm_bf16(dx, dy16, w16, add_dx, call.grad_in[0]);
        if (w.frozen) continue;
        if (!std::exchange(x_converted, true))
          to_operand(rounding_, ProductOperand::kXForDw, call.in[0], n, columns_, x16);
        if (rounding_.rounds(ProductOperand::kDyForDx) || rounding_.rounds(ProductOperand::kDyForDw)) {
          to_operand(rounding_, ProductOperand::kDyForDw, dy, n, w.rows, dy16);
        }
        gemm_bf16(dw, dy16, x16, std::exchange(w.grad_started, true), w.grad);
        continue;
      }
    }
    gemm(dx, T{1}, dy, w.value, add_dx ? T{1} : T{0}, call.grad_in[0]);
    if (w.frozen) continue;
    gemm(dw, T{1}, dy, call.in[0], std::exchange(w.grad_started, true) ? T{1} : T{0}, w.grad);
  }
}

template class Linear<float>;
template class Linear<double>;

}  // namespace mneme::train
