#include "model/feed_forward.h"

#include <algorithm>
#include <cstdint>

#include "base/parallel.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

/// gelu(x) with x and the result rounded to f16 where |x| < 10 (beyond: 0 or x), as the programs compute it that most
/// model files were made and measured with; logits agree with theirs ten times better than with an exact gelu.
void gelu_through_f16(const float* x, size_t n, float* y) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  constexpr size_t kBlock = 256;
  uint16_t half[kBlock];
  float rounded[kBlock];
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t m = std::min(kBlock, n - i);
    ops.f32_to_f16(x + i, m, half);
    ops.f16_to_f32(half, m, rounded);
    ops.gelu(rounded, m, rounded);
    ops.f32_to_f16(rounded, m, half);
    ops.f16_to_f32(half, m, rounded);
    for (size_t j = 0; j < m; ++j) {
      const float value = x[i + j];
      y[i + j] = value >= 10.0f ? value : value <= -10.0f ? 0.0f : rounded[j];
    }
  }
}

void gelu_multiply_through_f16(const float* gate, const float* up, size_t n, float* y) {
  gelu_through_f16(gate, n, y);  // y is gate or apart from it, never up
  kernels::vector_ops().multiply(y, up, n, y);
}

using Gating = void (*)(const float*, const float*, size_t, float*);

Gating gating(Activation activation) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  switch (activation) {
    case Activation::kGelu: return gelu_multiply_through_f16;
    case Activation::kRelu: return ops.relu_multiply;
    case Activation::kSilu: break;
  }
  return ops.silu_multiply;
}

class FeedForward : public ChannelMixer {
 public:
  FeedForward(Activation activation, const FeedForwardWeights& weights)
      : activation_(activation), w_(weights), hidden_(weights.down.weight->columns()) {}

  size_t workspace_bytes(size_t n_tokens) const override {
    return Workspace::bytes_for(n_tokens * hidden_ * (gated() ? 2 : 1));
  }

  void forward(size_t n_tokens, Workspace& workspace, float* y) const override {
    const Workspace::Scope scope(workspace);
    float* const rows = workspace.floats(n_tokens * hidden_ * (gated() ? 2 : 1));
    if (w_.gate_up) {  // rows gate | up
      w_.gate_up.apply(workspace, rows, 2 * hidden_);
      multiply_by_gate(rows, rows + hidden_, 2 * hidden_, n_tokens);
      for (size_t t = 1; t < n_tokens; ++t) std::copy_n(rows + t * 2 * hidden_, hidden_, rows + t * hidden_);
    } else if (w_.gate) {  // all gates, then all ups
      float* const up = rows + n_tokens * hidden_;
      const LinearOutput outputs[] = {{w_.gate, rows, hidden_}, {w_.up, up, hidden_}};
      apply_linears(outputs, workspace);
      multiply_by_gate(rows, up, hidden_, n_tokens);
    } else {
      w_.up.apply(workspace, rows, hidden_);
      parallel_for(n_tokens * hidden_, 4096, [&](size_t begin, size_t end) {
        gelu_through_f16(rows + begin, end - begin, rows + begin);
      });
    }
    workspace.input().set(rows, n_tokens, hidden_);
    w_.down.apply(workspace, y, w_.down.outputs());
  }

 private:
  bool gated() const { return w_.gate || w_.gate_up; }

  /// gate = act(gate) * up for n_tokens rows of `hidden`, both `stride` floats apart.
  void multiply_by_gate(float* gate, const float* up, size_t stride, size_t n_tokens) const {
    const Gating apply = gating(activation_);
    parallel_for(n_tokens * hidden_, 4096, [&](size_t begin, size_t end) {
      while (begin < end) {
        const size_t at = begin / hidden_ * stride + begin % hidden_;
        const size_t n = std::min(hidden_ - begin % hidden_, end - begin);
        apply(gate + at, up + at, n, gate + at);
        begin += n;
      }
    });
  }

  Activation activation_;
  FeedForwardWeights w_;
  size_t hidden_;
};

}  // namespace

std::unique_ptr<ChannelMixer> make_feed_forward(Activation activation, const FeedForwardWeights& weights) {
  return std::make_unique<FeedForward>(activation, weights);
}

}  // namespace mneme
