#include "train/planned_memory.h"

#include <algorithm>

#include "train/activation_policy.h"
#include "train/tape/executor.h"

namespace mneme::train {

PlannedMemory planned_memory(const LlamaSizes& sizes, size_t n_tokens, const AdapterOptions* adapter, DType base) {
  Ledger unused;
  LlamaOptions options;
  options.adapter = adapter;
  options.plan_only = true;
  LlamaModel<float> model(unused, sizes, options);
  apply_saving(model, kAnchorsOnly);
  const auto parameters = model.parameter_list();
  const Schedule training = compile(model.program(), parameters, n_tokens, true);
  PlannedMemory memory;
  for (const Parameter<float>* p : parameters) {
    const bool stored = p->frozen && p->is_matrix();
    memory.weights += stored ? row_bytes(base, p->columns) * p->rows : padded_values(*p) * sizeof(float);
    if (!p->frozen) memory.optimizer += 2 * p->size() * sizeof(float);
  }
  memory.gradients = gradient_bytes(parameters, training, GradientLife::kStep);
  memory.activations =
      std::max(training.storage.peak, compile(model.program(), parameters, n_tokens, false).storage.peak);
  return memory;
}

}  // namespace mneme::train
