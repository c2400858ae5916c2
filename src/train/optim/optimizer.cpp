#include "train/optim/optimizer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/ops/vector_math.h"

namespace mneme::train {

std::string_view kind_name(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kSgd:
      return "sgd";
    case OptimizerKind::kAdamW:
      return "adamw";
    case OptimizerKind::kAdamW8:
      return "adamw8";
    case OptimizerKind::kAdafactor:
      return "adafactor";
    case OptimizerKind::kMuon:
      return "muon";
    case OptimizerKind::kGalore:
      return "galore";
    case OptimizerKind::kNaturalGalore:
      return "natural-galore";
  }
  return {};
}

std::unique_ptr<Optimizer> make_optimizer(Ledger& ledger, ParameterList parameters, const OptimizerOptions& options) {
  switch (options.kind) {
    case OptimizerKind::kSgd:
      return make_sgd(ledger, std::move(parameters), options.sgd);
    case OptimizerKind::kAdamW:
    case OptimizerKind::kAdamW8:
      return make_adamw(ledger, std::move(parameters), options.adamw);
    case OptimizerKind::kAdafactor:
      return make_adafactor(ledger, std::move(parameters), options.adafactor);
    case OptimizerKind::kMuon:
      return make_muon(ledger, std::move(parameters), options.muon);
    case OptimizerKind::kGalore:
    case OptimizerKind::kNaturalGalore:
      return make_galore(ledger, std::move(parameters), options.galore);
  }
  return nullptr;
}

void Optimizer::gather(size_t, const StepInfo&, MicroBatch) {
  fail(ErrorCode::kUnsupported, "[optimizer] expected a kind that gathers gradients of micro-batches, found {}", name());
}

size_t Optimizer::state_bytes() {
  size_t total = 0;
  for (const StateView& view : state()) total += view.bytes.size();
  return total;
}

bool decays(const Parameter<float>& parameter) {
  return parameter.is_matrix() && parameter.role != Role::kEmbedding;
}

namespace {

double squared_norm(const Parameter<float>& parameter) {
  constexpr size_t kBlock = 4096;
  double sum = 0;
  for (size_t i = 0; i < parameter.size(); i += kBlock) {
    const size_t n = std::min(kBlock, parameter.size() - i);
    sum += static_cast<double>(dot(parameter.grad + i, parameter.grad + i, n));
  }
  return sum;
}

}  // namespace

double gradient_norm(const ParameterList& parameters) {
  double sum = 0;
  for (const Parameter<float>* parameter : parameters) {
    if (!parameter->frozen) sum += squared_norm(*parameter);
  }
  return std::sqrt(sum);
}

double gradient_norm(const Parameter<float>& parameter) {
  return std::sqrt(squared_norm(parameter));
}

}  // namespace mneme::train
