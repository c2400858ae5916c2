#include "train/ops/row_ops.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

/// Rows per thread so that a thread gets at least kGrainElements values.
size_t row_grain(size_t columns) {
  return std::max<size_t>(1, kGrainElements / columns);
}

/// Columns per thread for sums over rows, so that each value of the result has one owner and a fixed order of
/// additions.
constexpr size_t kColumnGrain = 16;

template <typename T>
void start_gradient(Parameter<T>& parameter) {
  if (!std::exchange(parameter.grad_started, true)) std::fill_n(parameter.grad, parameter.size(), T{0});
}

/// Calls body(sequence position, token) for the tokens of [begin, end).
template <class Body>
void for_positions(const Batch& batch, size_t begin, size_t end, Body body) {
  const auto starts = batch.sequence_starts;
  size_t sequence = static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin()) - 1;
  for (size_t t = begin; t < end; ++t) {
    while (t >= starts[sequence + 1]) ++sequence;
    body(t - starts[sequence], t);
  }
}

}  // namespace

template <typename T>
Embedding<T>::Embedding(Parameter<T>* table) {
  this->parameters = {table};
}

template <typename T>
void Embedding<T>::forward(const Call<T>& call) {
  const Parameter<T>& table = *this->parameters[0];
  for (size_t t = call.rows.begin; t < call.rows.end; ++t) {
    if (call.batch->tokens[t] < 0 || static_cast<size_t>(call.batch->tokens[t]) >= table.rows) {
      fail(ErrorCode::kInvalidArgument, "[embedding] expected ids of 0 to {}, found {}", table.rows - 1,
           call.batch->tokens[t]);
    }
    copy_row(table, static_cast<size_t>(call.batch->tokens[t]), call.out[0] + t * table.columns);
  }
}

template <typename T>
void Embedding<T>::backward(const Call<T>& call) {
  Parameter<T>& table = *this->parameters[0];
  if (table.frozen) return;
  start_gradient(table);
  parallel_for(table.columns, kColumnGrain, [&](size_t begin, size_t end) {
    for (size_t t = 0; t < call.rows.end; ++t) {
      T* row = table.grad + static_cast<size_t>(call.batch->tokens[t]) * table.columns;
      add(row + begin, call.grad_out[0] + t * table.columns + begin, end - begin, row + begin);
    }
  });
}

template <typename T>
RmsNorm<T>::RmsNorm(Parameter<T>* weight, T eps) : eps_(eps) {
  this->parameters = {weight};
}

template <typename T>
void RmsNorm<T>::forward(const Call<T>& call) {
  const Parameter<T>& w = *this->parameters[0];
  const size_t d = w.columns;
  parallel_for(call.rows.count(), row_grain(d), [&](size_t begin, size_t end) {
    for (size_t t = call.rows.begin + begin; t < call.rows.begin + end; ++t) {
      const T* x = call.in[0] + t * d;
      const T inverse = T{1} / std::sqrt(dot(x, x, d) / static_cast<T>(d) + eps_);
      multiply_scaled(x, w.value, inverse, d, call.out[0] + t * d);
    }
  });
}

// With r = 1 / sqrt(mean(x^2) + eps): dx = r * (w * dy) - x * r^3 / d * sum(w * dy * x), dw = sum over rows of dy * x *
// r.
template <typename T>
void RmsNorm<T>::backward(const Call<T>& call) {
  Parameter<T>& w = *this->parameters[0];
  const size_t d = w.columns, n = call.rows.end;
  auto* inverses = reinterpret_cast<T*>(call.scratch);
  parallel_for(n, row_grain(d), [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* x = call.in[0] + t * d;
      const T* dy = call.grad_out[0] + t * d;
      T* dx = call.grad_in[0] + t * d;
      const T inverse = T{1} / std::sqrt(dot(x, x, d) / static_cast<T>(d) + eps_);
      inverses[t] = inverse;
      const T along = dot3(dy, w.value, x, d) * inverse * inverse * inverse / static_cast<T>(d);
      if (call.accumulate[0]) {
        add_product(dy, w.value, inverse, d, dx);
      } else {
        multiply_scaled(dy, w.value, inverse, d, dx);
      }
      add_scaled(x, -along, d, dx);
    }
  });
  if (w.frozen) return;
  start_gradient(w);
  parallel_for(d, kColumnGrain, [&](size_t begin, size_t end) {
    for (size_t t = 0; t < n; ++t) {
      add_product(call.grad_out[0] + t * d + begin, call.in[0] + t * d + begin, inverses[t], end - begin,
                  w.grad + begin);
    }
  });
}

template <typename T>
RopeTable<T>::RopeTable(size_t n_positions, size_t head_dim, double base) : n_pairs(head_dim / 2) {
  cosines.resize(n_positions * n_pairs);
  sines.resize(n_positions * n_pairs);
  for (size_t i = 0; i < n_pairs; ++i) {
    const double frequency = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    for (size_t position = 0; position < n_positions; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      cosines[position * n_pairs + i] = static_cast<T>(std::cos(angle));
      sines[position * n_pairs + i] = static_cast<T>(std::sin(angle));
    }
  }
}

template <typename T>
Rope<T>::Rope(std::shared_ptr<const RopeTable<T>> table, size_t n_heads)
    : table_(std::move(table)), n_heads_(n_heads) {}

template <typename T>
void Rope<T>::rotate(const Batch& batch, Rows rows, const T* x, T direction, bool accumulate, T* y) const {
  const size_t pairs = table_->n_pairs, columns = n_heads_ * pairs * 2, n_positions = table_->cosines.size() / pairs;
  for (size_t s = 0; s < batch.n_sequences(); ++s) {
    const size_t length = batch.sequence_starts[s + 1] - batch.sequence_starts[s];
    if (length > n_positions) {
      fail(ErrorCode::kContextOverflow, "[rope] expected sequences of at most {} tokens, found {}", n_positions,
           length);
    }
  }
  parallel_for(rows.count(), row_grain(columns), [&](size_t begin, size_t end) {
    std::vector<T> rotated(accumulate ? pairs * 2 : 0);
    for_positions(batch, rows.begin + begin, rows.begin + end, [&](size_t position, size_t t) {
      const T* cosines = table_->cosines.data() + position * pairs;
      const T* sines = table_->sines.data() + position * pairs;
      for (size_t head = 0; head < n_heads_; ++head) {
        const size_t offset = t * columns + head * pairs * 2;
        T* out = accumulate ? rotated.data() : y + offset;
        rotate_pairs(x + offset, cosines, sines, direction, pairs, out);
        if (accumulate) add(y + offset, out, pairs * 2, y + offset);
      }
    });
  });
}

template <typename T>
void Rope<T>::forward(const Call<T>& call) {
  rotate(*call.batch, call.rows, call.in[0], T{1}, false, call.out[0]);
}

template <typename T>
void Rope<T>::backward(const Call<T>& call) {
  rotate(*call.batch, call.rows, call.grad_out[0], T{-1}, call.accumulate[0], call.grad_in[0]);
}

template <typename T>
void SwiGlu<T>::forward(const Call<T>& call) {
  const size_t first = call.rows.begin * columns_;
  parallel_for(call.rows.count() * columns_, kGrainElements, [&](size_t begin, size_t end) {
    swiglu(call.in[0] + first + begin, call.in[1] + first + begin, end - begin, call.out[0] + first + begin);
  });
}

template <typename T>
void SwiGlu<T>::backward(const Call<T>& call) {
  const size_t n = call.rows.end * columns_;
  if (call.accumulate[0] || call.accumulate[1]) {
    fail(ErrorCode::kUnsupported, "[swiglu] expected gate and up to be used once, found a second use");
  }
  parallel_for(n, kGrainElements, [&](size_t begin, size_t end) {
    swiglu_backward(call.in[0] + begin, call.in[1] + begin, call.grad_out[0] + begin, end - begin,
                    call.grad_in[0] + begin, call.grad_in[1] + begin);
  });
}

template <typename T>
void Add<T>::forward(const Call<T>& call) {
  const size_t first = call.rows.begin * columns_;
  parallel_for(call.rows.count() * columns_, kGrainElements, [&](size_t begin, size_t end) {
    add(call.in[0] + first + begin, call.in[1] + first + begin, end - begin, call.out[0] + first + begin);
  });
}

template <typename T>
void Add<T>::backward(const Call<T>& call) {
  const size_t n = call.rows.end * columns_;
  for (size_t k = 0; k < 2; ++k) {
    parallel_for(n, kGrainElements, [&](size_t begin, size_t end) {
      T* d = call.grad_in[k] + begin;
      const T* dy = call.grad_out[0] + begin;
      if (call.accumulate[k]) {
        add(d, dy, end - begin, d);
      } else {
        std::copy_n(dy, end - begin, d);
      }
    });
  }
}

template class Embedding<float>;
template class Embedding<double>;
template struct RopeTable<float>;
template struct RopeTable<double>;
template class RmsNorm<float>;
template class RmsNorm<double>;
template class Rope<float>;
template class Rope<double>;
template class SwiGlu<float>;
template class SwiGlu<double>;
template class Add<float>;
template class Add<double>;

}  // namespace mneme::train
