#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "budget/buffer.h"
#include "train/optim/optimizer_options.h"
#include "train/tape/parameter.h"

namespace mneme::train {

/// What is common to all parameters in one optimiser step.
struct StepInfo {
  uint64_t step;     ///< Optimiser steps done before this one.
  float rate;        ///< Learning rate of this step.
  float grad_scale;  ///< Factor applied to every gradient first (clipping, averaging).
};

/// Place of a micro-batch in its step.
struct MicroBatch {
  bool first, last;
};

/// A named array of optimiser state, for checkpoints.
struct StateView {
  std::string name;
  std::span<std::byte> bytes;
};

/// Updates parameters from their gradients. State is taken from the ledger under Tag::kOptimizer when the optimiser is
/// made. update() handles one parameter, so that it can run as soon as its gradient is final during backward.
/// Everything that decides the next steps is in state(), the step and the gradients: a resumed run repeats the bits.
class Optimizer {
 public:
  Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  virtual std::string_view name() const = 0;
  /// Changes parameter `index` (of the list given at creation) by its gradient, which must be finite.
  virtual void update(size_t index, const StepInfo& info) = 0;
  /// Whether gather() is there.
  virtual bool gathers() const { return false; }
  /// Takes the gradient of one of several micro-batches of a step; it may be overwritten afterwards. With the last one
  /// the parameter is updated by the sum. What is gathered is no state: checkpoints are written between steps.
  virtual void gather(size_t index, const StepInfo& info, MicroBatch micro);
  /// All state, in a fixed order.
  virtual std::vector<StateView> state() = 0;
  /// Numbers about the last step that are worth a place in the log.
  virtual std::vector<std::pair<std::string, double>> measures() const { return {}; }
  /// Bytes of all state.
  size_t state_bytes();
};

using ParameterList = std::vector<Parameter<float>*>;

/// The optimiser of options.kind. Each is described at the top of its file. Throws Error(kOutOfBudget).
std::unique_ptr<Optimizer> make_optimizer(Ledger& ledger, ParameterList parameters, const OptimizerOptions& options);

std::unique_ptr<Optimizer> make_sgd(Ledger& ledger, ParameterList parameters, const SgdOptions& options);
std::unique_ptr<Optimizer> make_adamw(Ledger& ledger, ParameterList parameters, const AdamWOptions& options);
std::unique_ptr<Optimizer> make_adafactor(Ledger& ledger, ParameterList parameters, const AdafactorOptions& options);
std::unique_ptr<Optimizer> make_muon(Ledger& ledger, ParameterList parameters, const MuonOptions& options);
std::unique_ptr<Optimizer> make_galore(Ledger& ledger, ParameterList parameters, const GaloreOptions& options);

/// Whether weight decay applies: matrices except embeddings.
bool decays(const Parameter<float>& parameter);

/// Euclidean norm of all gradients together.
double gradient_norm(const ParameterList& parameters);
/// Euclidean norm of the gradient of one parameter.
double gradient_norm(const Parameter<float>& parameter);

}  // namespace mneme::train
