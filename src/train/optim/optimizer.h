#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "budget/buffer.h"
#include "train/tape/parameter.h"

namespace mneme::train {

/// What is common to all parameters in one optimiser step.
struct StepInfo {
  uint64_t step;      ///< Optimiser steps done before this one.
  float rate;         ///< Learning rate of this step.
  float grad_scale;   ///< Factor applied to every gradient first (clipping, averaging).
};

/// A named array of optimiser state, for checkpoints.
struct StateView {
  std::string name;
  std::span<std::byte> bytes;
};

/// Updates parameters from their gradients. State is taken from the ledger under Tag::kOptimizer when the optimiser is
/// made. update() handles one parameter, so that it can run as soon as its gradient is final during backward.
class Optimizer {
 public:
  Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  virtual std::string_view name() const = 0;
  /// Changes parameter `index` (of the list given at creation) by its gradient.
  virtual void update(size_t index, const StepInfo& info) = 0;
  /// All state, in a fixed order.
  virtual std::vector<StateView> state() = 0;
  /// Bytes of all state.
  size_t state_bytes();
};

using ParameterList = std::vector<Parameter<float>*>;

/// Adam with decoupled weight decay (arXiv 1711.05101); norms and embeddings don't decay.
struct AdamWOptions {
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0.1f;
};
std::unique_ptr<Optimizer> make_adamw(Ledger& ledger, ParameterList parameters, const AdamWOptions& options);

/// Muon (Jordan et al. 2024): momentum whose matrix is replaced by the nearest orthogonal one, found by five steps of a
/// quintic Newton-Schulz iteration, for the matrices of attention and feed-forward; everything else gets AdamW. The update
/// of an m x n matrix is scaled by 0.2 sqrt(max(m, n)), which gives it the size of an AdamW step (arXiv 2502.16982), so one
/// learning rate serves both.
struct MuonOptions {
  float momentum = 0.95f, weight_decay = 0.1f;
  AdamWOptions other;
};
std::unique_ptr<Optimizer> make_muon(Ledger& ledger, ParameterList parameters, const MuonOptions& options);

/// Euclidean norm of all gradients together.
double gradient_norm(const ParameterList& parameters);

}  // namespace mneme::train
