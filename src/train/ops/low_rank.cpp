#include "train/ops/low_rank.h"

#include <utility>

#include "train/ops/gemm.h"

namespace mneme::train {

template <typename T>
void LowRank<T>::forward(const T* x, size_t n, T* scratch, T* y) const {
  const size_t r = rank(), in = a->columns, out = b->rows;
  gemm({n, r, in, false, true, in, in, r}, T{1}, x, a->value, T{0}, scratch);
  gemm({n, out, r, false, true, r, r, out}, scale, scratch, b->value, T{1}, y);
}

template <typename T>
void LowRank<T>::backward(const T* x, const T* dy, size_t n, T* scratch, T* dx) const {
  const size_t r = rank(), in = a->columns, out = b->rows;
  T* const du = scratch + n * r;
  gemm({n, r, out, false, false, out, r, r}, scale, dy, b->value, T{0}, du);
  gemm({n, in, r, false, false, r, in, in}, T{1}, du, a->value, T{1}, dx);
  if (!b->frozen) {
    gemm({n, r, in, false, true, in, in, r}, T{1}, x, a->value, T{0}, scratch);
    gemm({out, r, n, true, false, out, r, r}, scale, dy, scratch, std::exchange(b->grad_started, true) ? T{1} : T{0},
         b->grad);
  }
  if (!a->frozen) {
    gemm({r, in, n, true, false, r, in, in}, T{1}, du, x, std::exchange(a->grad_started, true) ? T{1} : T{0}, a->grad);
  }
}

template <typename T>
void LowRank<T>::add_to(T* w, T sign) const {
  const size_t r = rank(), in = a->columns, out = b->rows;
  gemm({out, in, r, false, false, r, in, in}, sign * scale, b->value, a->value, T{1}, w);
}

template struct LowRank<float>;
template struct LowRank<double>;

}  // namespace mneme::train
