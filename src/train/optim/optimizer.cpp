#include "train/optim/optimizer.h"

#include <cmath>

#include "train/ops/vector_math.h"

namespace mneme::train {

size_t Optimizer::state_bytes() {
  size_t total = 0;
  for (const StateView& view : state()) total += view.bytes.size();
  return total;
}

double gradient_norm(const ParameterList& parameters) {
  constexpr size_t kBlock = 4096;
  double sum = 0;
  for (const Parameter<float>* parameter : parameters) {
    if (parameter->frozen) continue;
    for (size_t i = 0; i < parameter->size(); i += kBlock) {
      const size_t n = std::min(kBlock, parameter->size() - i);
      sum += static_cast<double>(dot(parameter->grad + i, parameter->grad + i, n));
    }
  }
  return std::sqrt(sum);
}

}  // namespace mneme::train
