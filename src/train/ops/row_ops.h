#pragma once

#include <memory>

#include "train/tape/op.h"

/// Ops that work on each token row alone: embedding, RMS norm, rotary positions, gated product, sum.
namespace mneme::train {

/// y[t] = E[token[t]]. No inputs; one output. Parameter: E [vocabulary, columns].
template <typename T>
class Embedding : public Op<T> {
 public:
  explicit Embedding(Parameter<T>* table);
  std::string_view kind() const override { return "embedding"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
};

/// y = x / sqrt(mean(x^2) + eps) * w. Saves x; the norms are computed again in backward.
template <typename T>
class RmsNorm : public Op<T> {
 public:
  RmsNorm(Parameter<T>* weight, T eps);
  std::string_view kind() const override { return "rms_norm"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 1; }
  size_t backward_scratch_bytes(size_t n_tokens) const override { return 2 * n_tokens * sizeof(T); }

 private:
  T eps_;
};

/// Cosines and sines of position * base^(-2i/head_dim) for pairs i of a head, [positions, head_dim / 2] each.
template <typename T>
struct RopeTable {
  RopeTable(size_t n_positions, size_t head_dim, double base);
  size_t n_pairs;
  std::vector<T> cosines, sines;
};

/// Rotates pairs (2i, 2i+1) of every head by the position of the token in its sequence. Saves nothing.
template <typename T>
class Rope : public Op<T> {
 public:
  Rope(std::shared_ptr<const RopeTable<T>> table, size_t n_heads);
  std::string_view kind() const override { return "rope"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;

 private:
  void rotate(const Batch& batch, Rows rows, const T* x, T direction, bool accumulate, T* y) const;

  std::shared_ptr<const RopeTable<T>> table_;
  size_t n_heads_;
};

/// y = silu(gate) * up. Inputs: gate, up. Saves both.
template <typename T>
class SwiGlu : public Op<T> {
 public:
  explicit SwiGlu(size_t columns) : columns_(columns) {}
  std::string_view kind() const override { return "swiglu"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 3; }

 private:
  size_t columns_;
};

/// y = a + b. Saves nothing.
template <typename T>
class Add : public Op<T> {
 public:
  explicit Add(size_t columns) : columns_(columns) {}
  std::string_view kind() const override { return "add"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;

 private:
  size_t columns_;
};

}  // namespace mneme::train
