#include "train/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "base/checked_math.h"
#include "base/parallel.h"
#include "train/ops/gemm.h"
#include "train/ops/packed_product.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

/// Logits of one block take about this much memory, whatever the vocabulary.
constexpr size_t kBlockBytes = size_t{8} << 20;
constexpr size_t kLeastBlockRows = 16;

/// bf16 products are compiled per shape, so the rows of the last block are padded with zeros to a few shapes.
constexpr size_t kRowStep = 64;

size_t padded(size_t n) { return (n + 31) / 32 * 32; }

template <typename T>
void convert(const T* x, size_t n, uint16_t* y) {
  if constexpr (std::is_same_v<T, float>) {
    parallel_for(n, kGrainElements, [&](size_t begin, size_t end) { to_bf16(x + begin, end - begin, y + begin); });
  }
}

}  // namespace

template <typename T>
struct CrossEntropy<T>::Scratch {
  T *x, *dx, *logits;                         ///< [block, d], [block, d], [block, vocabulary]
  T *taught_x, *taught;                       ///< With a teacher: [block, columns of its head], [block, vocabulary]
  uint16_t *x16, *logits16, *head16;          ///< bf16 only
};

template <typename T>
CrossEntropy<T>::CrossEntropy(Parameter<T>* head, GemmFormat format) : format_(format) {
  this->parameters = {head};
}

template <typename T>
size_t CrossEntropy<T>::block_rows(size_t n_tokens) const {
  const size_t vocabulary = this->parameters[0]->rows;
  const size_t rows = std::min(n_tokens, std::max(kLeastBlockRows, kBlockBytes / (vocabulary * sizeof(T))));
  return converts() ? round_up(rows, kRowStep) : rows;
}

template <typename T>
size_t CrossEntropy<T>::forward_scratch_bytes(size_t n_tokens) const {
  const Parameter<T>& head = *this->parameters[0];
  const size_t block = block_rows(n_tokens);
  size_t bytes = (2 * padded(block * head.columns) + padded(block * head.rows)) * sizeof(T);
  if (teacher_ != nullptr) bytes += (padded(block * teacher_->head->columns) + padded(block * head.rows)) * sizeof(T);
  if (converts()) {
    bytes += (padded(block * head.columns) + padded(block * head.rows) + padded(head.size())) * sizeof(uint16_t);
  }
  return bytes;
}

template <typename T>
typename CrossEntropy<T>::Scratch CrossEntropy<T>::scratch_of(const Call<T>& call) const {
  const Parameter<T>& head = *this->parameters[0];
  const size_t block = block_rows(call.batch->n_tokens());
  Scratch s{};
  s.x = reinterpret_cast<T*>(call.scratch);
  s.dx = s.x + padded(block * head.columns);
  s.logits = s.dx + padded(block * head.columns);
  T* end = s.logits + padded(block * head.rows);
  if (teacher_ != nullptr) {
    s.taught_x = end;
    s.taught = s.taught_x + padded(block * teacher_->head->columns);
    end = s.taught + padded(block * head.rows);
  }
  if (converts()) {
    s.x16 = reinterpret_cast<uint16_t*>(end);
    s.logits16 = s.x16 + padded(block * head.columns);
    s.head16 = s.logits16 + padded(block * head.rows);
  }
  return s;
}

template <typename T>
double CrossEntropy<T>::forward_flops(const Batch& batch) const {
  const auto listed = std::count_if(batch.weights.begin(), batch.weights.end(), [](float w) { return w != 0; });
  return 2.0 * static_cast<double>(listed) * static_cast<double>(this->parameters[0]->size());
}

template <typename T>
void CrossEntropy<T>::forward(const Call<T>& call) {
  run(call, false);
}

template <typename T>
void CrossEntropy<T>::backward(const Call<T>& call) {
  run(call, true);
}

template <typename T>
void CrossEntropy<T>::run(const Call<T>& call, bool backward) {
  Parameter<T>& head = *this->parameters[0];
  const Batch& batch = *call.batch;
  const size_t d = head.columns, vocabulary = head.rows;
  const Scratch scratch = scratch_of(call);
  const bool taught = backward && teacher_ != nullptr;
  const double kl = taught ? teacher_->kl_weight : 0, ce = taught ? teacher_->ce_weight : 1;
  std::vector<double> divergence;
  std::vector<uint32_t> listed;
  for (uint32_t t = 0; t < batch.n_tokens(); ++t) {
    if (batch.weights[t] != 0) listed.push_back(t);
  }
  token_losses_.assign(listed.size(), 0);
  best_ids_.assign(backward ? 0 : listed.size(), 0);
  if (backward && !call.accumulate[0]) std::fill_n(call.grad_in[0], batch.n_tokens() * d, T{0});
  if (converts()) convert(head.value, head.size(), scratch.head16);

  const size_t block = block_rows(batch.n_tokens());
  loss_ = 0;
  for (size_t first = 0; first < listed.size(); first += block) {
    const size_t n_rows = std::min(block, listed.size() - first);
    const size_t n_padded = converts() ? round_up(n_rows, kRowStep) : n_rows;
    for (size_t i = 0; i < n_rows; ++i) std::copy_n(call.in[0] + listed[first + i] * d, d, scratch.x + i * d);
    std::fill(scratch.x + n_rows * d, scratch.x + n_padded * d, T{0});
    logits(scratch, n_padded);
    std::fill(scratch.logits + n_rows * vocabulary, scratch.logits + n_padded * vocabulary, T{0});
    if (taught) teach(scratch, listed.data() + first, n_rows, divergence);
    parallel_for(n_rows, 4, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const uint32_t t = listed[first + i];
        const auto target = static_cast<size_t>(batch.targets[t]);
        T* row = scratch.logits + i * vocabulary;
        const T top = max_of(row, vocabulary);
        const T target_logit = row[target];
        if (!backward) best_ids_[first + i] = static_cast<int32_t>(std::find(row, row + vocabulary, top) - row);
        const T sum = exp_shifted(row, T{1}, top, vocabulary);
        token_losses_[first + i] = static_cast<double>(std::log(sum) + top - target_logit);
        if (!backward) continue;
        const T factor = static_cast<T>(static_cast<double>(batch.weights[t]) * batch.loss_scale);
        scale(row, factor * static_cast<T>(kl + ce) / sum, vocabulary, row);
        row[target] -= factor * static_cast<T>(ce);
        if (taught) add_scaled(scratch.taught + i * vocabulary, -factor * static_cast<T>(kl), vocabulary, row);
      }
    });
    for (size_t i = 0; i < n_rows; ++i) {
      const double row_loss = ce * token_losses_[first + i] + (taught ? kl * divergence[i] : 0.0);
      loss_ += static_cast<double>(batch.weights[listed[first + i]]) * row_loss;
    }
    if (backward) gradients(call, scratch, listed.data() + first, n_rows, n_padded);
  }
  loss_ *= batch.loss_scale;
}

template <typename T>
void CrossEntropy<T>::logits(const Scratch& scratch, size_t n_rows) const {
  const Parameter<T>& head = *this->parameters[0];
  if (head.is_packed()) {
    packed_multiply(head.packed, scratch.x, n_rows, false, scratch.logits);
    return;
  }
  const GemmShape shape{n_rows, head.rows, head.columns, false, true, head.columns, head.columns, head.rows};
  if constexpr (std::is_same_v<T, float>) {
    if (converts()) {
      convert(scratch.x, n_rows * head.columns, scratch.x16);
      gemm_bf16(shape, scratch.x16, scratch.head16, false, scratch.logits);
      return;
    }
  }
  gemm(shape, T{1}, scratch.x, head.value, T{0}, scratch.logits);
}

template <typename T>
void CrossEntropy<T>::teach(const Scratch& scratch, const uint32_t* rows, size_t n_rows,
                            std::vector<double>& divergence) const {
  const Parameter<T>& head = *teacher_->head;
  const size_t d = head.columns, vocabulary = head.rows;
  for (size_t i = 0; i < n_rows; ++i) std::copy_n(teacher_->hidden + rows[i] * d, d, scratch.taught_x + i * d);
  packed_multiply(head.packed, scratch.taught_x, n_rows, false, scratch.taught);
  divergence.assign(n_rows, 0);
  // KL = sum q (t - s) - log sum exp(t) + log sum exp(s) for logits t of the teacher and s of the model.
  parallel_for(n_rows, 4, [&](size_t begin, size_t end) {
    std::vector<T> exponentials(vocabulary);
    for (size_t i = begin; i < end; ++i) {
      T* const t = scratch.taught + i * vocabulary;
      const T* const s = scratch.logits + i * vocabulary;
      std::copy_n(s, vocabulary, exponentials.data());
      const T top_s = max_of(s, vocabulary), sum_s = exp_shifted(exponentials.data(), T{1}, top_s, vocabulary);
      std::copy_n(t, vocabulary, exponentials.data());
      const T top_t = max_of(t, vocabulary), sum_t = exp_shifted(exponentials.data(), T{1}, top_t, vocabulary);
      const T difference = (dot(exponentials.data(), t, vocabulary) - dot(exponentials.data(), s, vocabulary)) / sum_t;
      divergence[i] = static_cast<double>(difference - top_t - std::log(sum_t) + top_s + std::log(sum_s));
      scale(exponentials.data(), T{1} / sum_t, vocabulary, t);
    }
  });
}

template <typename T>
void CrossEntropy<T>::gradients(const Call<T>& call, const Scratch& scratch, const uint32_t* rows, size_t n_rows,
                                size_t n_padded) {
  Parameter<T>& head = *this->parameters[0];
  const size_t d = head.columns, vocabulary = head.rows;
  const GemmShape dx{n_padded, d, vocabulary, false, false, vocabulary, d, d};
  const GemmShape dw{vocabulary, d, n_padded, true, false, vocabulary, d, d};
  bool done = false;
  if constexpr (std::is_same_v<T, float>) {
    if (converts()) {
      convert(scratch.logits, n_padded * vocabulary, scratch.logits16);
      gemm_bf16(dx, scratch.logits16, scratch.head16, false, scratch.dx);
      if (!head.frozen) {
        gemm_bf16(dw, scratch.logits16, scratch.x16, std::exchange(head.grad_started, true), head.grad);
      }
      done = true;
    }
  }
  if (!done) {
    if (head.is_packed()) {
      packed_multiply_transposed(head.packed, scratch.logits, n_padded, false, scratch.dx);
    } else {
      gemm(dx, T{1}, scratch.logits, head.value, T{0}, scratch.dx);
    }
    if (!head.frozen) {
      gemm(dw, T{1}, scratch.logits, scratch.x, std::exchange(head.grad_started, true) ? T{1} : T{0}, head.grad);
    }
  }
  for (size_t i = 0; i < n_rows; ++i) {
    T* out = call.grad_in[0] + rows[i] * d;
    add(out, scratch.dx + i * d, d, out);
  }
}

template class CrossEntropy<float>;
template class CrossEntropy<double>;

}  // namespace mneme::train
