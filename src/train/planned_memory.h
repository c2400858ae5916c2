#pragma once

#include <cstdint>

#include "train/llama.h"

namespace mneme::train {

/// Bytes that training with AdamW takes, by class, as the ledger counts them but for rounding to pages.
struct PlannedMemory {
  uint64_t weights = 0, gradients = 0, optimizer = 0, activations = 0;

  uint64_t total() const { return weights + gradients + optimizer + activations; }
};

/// Memory of steps of n_tokens with anchors kept (activation_policy.h), without taking any of it, so that shapes can be
/// asked for that this machine could not train: with P values in total and P_a in adapters
///
///   all weights in f32    16 P + activations             weight, gradient and two moments
///   adapters              stored bytes + 16 P_a + activations
///
/// Activations are those of the compiled program. With `adapter` the matrices are frozen and stored as `base`.
PlannedMemory planned_memory(const LlamaSizes& sizes, size_t n_tokens, const AdapterOptions* adapter, DType base);

}  // namespace mneme::train
