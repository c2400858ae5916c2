#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/vector_ops.h"
#include "model/feed_forward.h"

namespace mneme {
namespace {

/// Tokens are grouped by expert, so that each expert's matrices are read once a batch.
class Mixture : public ChannelMixer {
 public:
  Mixture(const MixtureSpec& spec, MixtureWeights weights) : spec_(spec), w_(std::move(weights)) {
    for (const FeedForwardWeights& expert : w_.experts) experts_.push_back(make_feed_forward(spec.activation, expert));
    if (w_.shared.down) shared_ = make_feed_forward(spec.activation, w_.shared);
    width_ = w_.router.weight->columns();
  }

  size_t workspace_bytes(size_t n_tokens) const override {
    return Workspace::bytes_for(n_tokens * w_.experts.size()) + 2 * Workspace::bytes_for(n_tokens * width_) +
           std::max(experts_.front()->workspace_bytes(n_tokens), shared_ ? shared_->workspace_bytes(n_tokens) : 0);
  }

  void forward(size_t n_tokens, Workspace& workspace, float* y) const override {
    const Workspace::Scope scope(workspace);
    const float* const x = workspace.input().x();
    float* const router = workspace.floats(n_tokens * w_.experts.size());
    float* const gathered = workspace.floats(n_tokens * width_);
    float* const produced = workspace.floats(n_tokens * width_);
    w_.router.apply(workspace, router, w_.experts.size());

    std::vector<std::vector<std::pair<size_t, float>>> assigned(w_.experts.size());  // token, weight
    for (size_t t = 0; t < n_tokens; ++t) route(router + t * w_.experts.size(), t, assigned);

    if (shared_) {
      shared_->forward(n_tokens, workspace, y);
    } else {
      std::fill_n(y, n_tokens * width_, 0.0f);
    }
    for (size_t e = 0; e < assigned.size(); ++e) {
      const auto& tokens = assigned[e];
      if (tokens.empty()) continue;
      for (size_t i = 0; i < tokens.size(); ++i) {
        std::copy_n(x + tokens[i].first * width_, width_, gathered + i * width_);
      }
      workspace.input().set(gathered, tokens.size(), width_);
      experts_[e]->forward(tokens.size(), workspace, produced);
      for (size_t i = 0; i < tokens.size(); ++i) {
        kernels::vector_ops().add_scaled(produced + i * width_, tokens[i].second, width_, y + tokens[i].first * width_);
      }
    }
  }

 private:
  /// Softmax over all experts, the n_used most probable ones (lower index first on ties).
  void route(float* scores, size_t token, std::vector<std::vector<std::pair<size_t, float>>>& assigned) const {
    const size_t n = w_.experts.size();
    kernels::vector_ops().softmax(scores, n, scores);
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::partial_sort(order.begin(), order.begin() + spec_.n_used, order.end(), [&](size_t a, size_t b) {
      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    });
    float sum = 0;
    for (size_t i = 0; i < spec_.n_used; ++i) sum += scores[order[i]];
    const float factor = spec_.scale * (spec_.renormalise ? 1 / std::max(sum, 6.1e-5f) : 1.0f);
    for (size_t i = 0; i < spec_.n_used; ++i) assigned[order[i]].emplace_back(token, scores[order[i]] * factor);
  }

  MixtureSpec spec_;
  MixtureWeights w_;
  std::vector<std::unique_ptr<ChannelMixer>> experts_;
  std::unique_ptr<ChannelMixer> shared_;
  size_t width_;
};

}  // namespace

std::unique_ptr<ChannelMixer> make_mixture(const MixtureSpec& spec, MixtureWeights weights) {
  return std::make_unique<Mixture>(spec, std::move(weights));
}

}  // namespace mneme
