// AdamW (arXiv 1412.6980 with the decoupled decay of 1711.05101) and its 8-bit form (arXiv 2110.02861).
//
//   m <- beta1 m + (1 - beta1) g                v <- beta2 v + (1 - beta2) g^2
//   w <- w (1 - rate decay) - rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
//
// State of a parameter of n values: m and v, 8 n bytes; in 8 bits about 2.03 n (adam_moments.h). The 8-bit form decodes
// a block, updates it in f32 and encodes it again; it has no stable embedding layer (the paper's extra norm).
#include <cmath>
#include <utility>

#include "train/optim/adam_moments.h"
#include "train/optim/optimizer.h"

namespace mneme::train {
namespace {

std::vector<size_t> sizes_of(const ParameterList& parameters) {
  std::vector<size_t> sizes;
  for (const auto* parameter : parameters) sizes.push_back(parameter->size());
  return sizes;
}

class AdamW : public Optimizer {
 public:
  AdamW(Ledger& ledger, ParameterList parameters, const AdamWOptions& options)
      : parameters_(std::move(parameters)),
        options_(options),
        moments_(ledger, sizes_of(parameters_), options.moments, "adamw") {}

  std::string_view name() const override { return options_.moments == MomentFormat::k8Bit ? "adamw8" : "adamw"; }

  void update(size_t index, const StepInfo& info) override {
    Parameter<float>& parameter = *parameters_[index];
    moments_.step(index, adam_step_of(options_, info, decays(parameter)), parameter.grad, parameter.value);
  }

  std::vector<StateView> state() override { return moments_.state(); }

 private:
  ParameterList parameters_;
  AdamWOptions options_;
  AdamMoments moments_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Ledger& ledger, ParameterList parameters, const AdamWOptions& options) {
  return std::make_unique<AdamW>(ledger, std::move(parameters), options);
}

}  // namespace mneme::train
