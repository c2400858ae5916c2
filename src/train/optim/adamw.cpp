#include <cmath>
#include <utility>

#include "base/parallel.h"
#include "train/ops/vector_math.h"
#include "train/optim/optimizer.h"

namespace mneme::train {
namespace {

class AdamW : public Optimizer {
 public:
  AdamW(Ledger& ledger, ParameterList parameters, const AdamWOptions& options)
      : parameters_(std::move(parameters)), options_(options) {
    size_t total = 0;
    for (const auto* parameter : parameters_) {
      offsets_.push_back(total);
      total += parameter->size();
    }
    m_ = Buffer(ledger, Tag::kOptimizer, total * sizeof(float), "first moments of AdamW");
    v_ = Buffer(ledger, Tag::kOptimizer, total * sizeof(float), "second moments of AdamW");
  }

  std::string_view name() const override { return "adamw"; }

  // The bias corrections are folded into the rate and eps is scaled to match, which equals the textbook form.
  void update(size_t index, const StepInfo& info) override {
    Parameter<float>& parameter = *parameters_[index];
    const double t = static_cast<double>(info.step) + 1;
    const double root = std::sqrt(1 - std::pow(options_.beta2, t));
    AdamStep step{};
    step.beta1 = options_.beta1;
    step.beta2 = options_.beta2;
    step.eps = static_cast<float>(options_.eps * root);
    step.rate = static_cast<float>(info.rate * root / (1 - std::pow(options_.beta1, t)));
    step.decay = parameter.is_matrix() && parameter.role != Role::kEmbedding ? info.rate * options_.weight_decay : 0.0f;
    step.grad_scale = info.grad_scale;
    float* m = m_.as<float>().data() + offsets_[index];
    float* v = v_.as<float>().data() + offsets_[index];
    parallel_for(parameter.size(), 16384, [&](size_t begin, size_t end) {
      adam_update(step, parameter.grad + begin, end - begin, parameter.value + begin, m + begin, v + begin);
    });
  }

  std::vector<StateView> state() override {
    return {{"adamw.m", {m_.data(), m_.size()}}, {"adamw.v", {v_.data(), v_.size()}}};
  }

 private:
  ParameterList parameters_;
  AdamWOptions options_;
  std::vector<size_t> offsets_;
  Buffer m_, v_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Ledger& ledger, ParameterList parameters, const AdamWOptions& options) {
  return std::make_unique<AdamW>(ledger, std::move(parameters), options);
}

}  // namespace mneme::train
