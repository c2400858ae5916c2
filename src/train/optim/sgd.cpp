// Stochastic gradient descent with momentum (Polyak 1964; Nesterov's form as in Sutskever et al. 2013) and decoupled
// weight decay (arXiv 1711.05101).
//
//   v <- mu v + g          w <- w (1 - rate decay) - rate v            or, with Nesterov, - rate (g + mu v)
//
// State: v, one f32 for each weight of the model, nothing when mu is 0.
#include <utility>

#include "base/parallel.h"
#include "train/ops/vector_math.h"
#include "train/optim/optimizer.h"

namespace mneme::train {
namespace {

class Sgd : public Optimizer {
 public:
  Sgd(Ledger& ledger, ParameterList parameters, const SgdOptions& options)
      : parameters_(std::move(parameters)), options_(options) {
    size_t total = 0;
    for (const auto* parameter : parameters_) {
      offsets_.push_back(total);
      total += parameter->size();
    }
    if (options_.momentum > 0) velocity_ = Buffer(ledger, Tag::kOptimizer, total * sizeof(float), "momentum of SGD");
  }

  std::string_view name() const override { return "sgd"; }

  void update(size_t index, const StepInfo& info) override {
    Parameter<float>& p = *parameters_[index];
    const float keep = decays(p) ? 1.0f - info.rate * options_.weight_decay : 1.0f;
    const float mu = options_.momentum;
    float* velocity = mu > 0 ? velocity_.as<float>().data() + offsets_[index] : nullptr;
    parallel_for(p.size(), 16384, [&](size_t begin, size_t end) {
      const size_t n = end - begin;
      float* w = p.value + begin;
      const float* g = p.grad + begin;
      scale(w, keep, n, w);
      if (velocity == nullptr) {
        add_scaled(g, -info.rate * info.grad_scale, n, w);
        return;
      }
      float* v = velocity + begin;
      scale(v, mu, n, v);
      add_scaled(g, info.grad_scale, n, v);
      add_scaled(v, options_.nesterov ? -info.rate * mu : -info.rate, n, w);
      if (options_.nesterov) add_scaled(g, -info.rate * info.grad_scale, n, w);
    });
  }

  std::vector<StateView> state() override {
    if (velocity_.size() == 0) return {};
    return {{"sgd.momentum", {velocity_.data(), velocity_.size()}}};
  }

 private:
  ParameterList parameters_;
  SgdOptions options_;
  std::vector<size_t> offsets_;
  Buffer velocity_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(Ledger& ledger, ParameterList parameters, const SgdOptions& options) {
  return std::make_unique<Sgd>(ledger, std::move(parameters), options);
}

}  // namespace mneme::train
