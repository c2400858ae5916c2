#include "train/ops/dispatch.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "train/ops/route.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

size_t grain_of(size_t columns) {
  return std::max<size_t>(1, kGrainElements / columns);
}

/// y = x, or y += x.
template <typename T>
void put(const T* x, size_t n, bool accumulate, T* y) {
  if (accumulate) {
    add(y, x, n, y);
  } else {
    std::copy_n(x, n, y);
  }
}

}  // namespace

template <typename T>
void Gather<T>::forward(const Call<T>& call) {
  const size_t n = call.batch->n_tokens(), d = columns_;
  const Route route = Route::of(call.in[1], n, n_used_);
  parallel_for(n, grain_of(d), [&](size_t begin, size_t end) {
    for (size_t i = begin * n_used_; i < end * n_used_; ++i) {
      std::copy_n(call.in[0] + i / n_used_ * d, d, call.out[0] + route.row_of[i] * d);
    }
  });
}

template <typename T>
void Gather<T>::backward(const Call<T>& call) {
  const size_t n = call.batch->n_tokens(), d = columns_;
  const Route route = Route::of(call.in[1], n, n_used_);
  parallel_for(n, grain_of(d), [&](size_t begin, size_t end) {
    for (size_t i = begin * n_used_; i < end * n_used_; ++i) {
      put(call.grad_out[0] + route.row_of[i] * d, d, call.accumulate[0] || i % n_used_ > 0,
          call.grad_in[0] + i / n_used_ * d);
    }
  });
}

template <typename T>
void Combine<T>::forward(const Call<T>& call) {
  const size_t n = call.batch->n_tokens(), d = columns_;
  const Route route = Route::of(call.in[2], n, n_used_);
  parallel_for(n, grain_of(d), [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      T* y = call.out[0] + t * d;
      if (call.in[3] != nullptr) {
        std::copy_n(call.in[3] + t * d, d, y);
      } else {
        std::fill_n(y, d, T{0});
      }
      for (size_t i = t * n_used_; i < (t + 1) * n_used_; ++i) {
        add_scaled(call.in[0] + route.row_of[i] * d, call.in[1][i], d, y);
      }
    }
  });
}

template <typename T>
void Combine<T>::backward(const Call<T>& call) {
  if (call.accumulate[0] || call.accumulate[1]) {
    fail(ErrorCode::kUnsupported, "[combine] expected rows and weights to be used once, found a second use");
  }
  const size_t n = call.batch->n_tokens(), d = columns_;
  const Route route = Route::of(call.in[2], n, n_used_);
  parallel_for(n, grain_of(d), [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* dy = call.grad_out[0] + t * d;
      for (size_t i = t * n_used_; i < (t + 1) * n_used_; ++i) {
        const size_t at = route.row_of[i] * d;
        call.grad_in[1][i] = dot(dy, call.in[0] + at, d);
        scale(dy, call.in[1][i], d, call.grad_in[0] + at);
      }
      if (call.grad_in[3] != nullptr) put(dy, d, call.accumulate[3], call.grad_in[3] + t * d);
    }
  });
}

template class Gather<float>;
template class Gather<double>;
template class Combine<float>;
template class Combine<double>;

}  // namespace mneme::train
