#include "model/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/parallel.h"
#include "context/kv_layer.h"
#include "kernels/attention.h"

namespace mneme {
namespace {

class Attention : public SequenceMixer {
 public:
  Attention(const AttentionSpec& spec, const AttentionWeights& weights)
      : spec_(spec),
        w_(weights),
        q_size_(size_t{spec.n_heads} * spec.key_dim),
        k_size_(size_t{spec.n_kv_heads} * spec.key_dim),
        v_size_(size_t{spec.n_kv_heads} * spec.value_dim),
        out_size_(size_t{spec.n_heads} * spec.value_dim) {}

  std::optional<KvShape> kv_shape() const override {
    return spec_.causal ? std::optional(shape()) : std::nullopt;
  }

  StateSpec state_spec(const StateOptions& options) const override {
    if (!spec_.causal) return {};
    return options.kv.spec(shape(), options.max_tokens, options.max_batch, options.place);
  }

  std::unique_ptr<LayerState> make_state(const StateOptions& options, Ledger& ledger) const override {
    if (!spec_.causal) return nullptr;
    return options.kv.make_layer(shape(), options.max_tokens, options.max_batch, ledger, options.place);
  }

  size_t workspace_bytes(size_t n_tokens) const override {
    return Workspace::bytes_for(n_tokens * (q_size_ + k_size_ + v_size_)) + Workspace::bytes_for(n_tokens * out_size_);
  }

  void forward(const MixerInput& in, Workspace& workspace, float* y) const override {
    const Workspace::Scope scope(workspace);
    const size_t stride = q_size_ + k_size_ + v_size_;  // rows hold q | k | v
    float* const q = workspace.floats(in.n_tokens * stride);
    float* const k = q + q_size_;
    float* const v = k + k_size_;
    float* const mixed = workspace.floats(in.n_tokens * out_size_);

    if (w_.qkv) {
      w_.qkv.apply(workspace, q, stride);
    } else {
      const LinearOutput outputs[] = {{w_.q, q, stride}, {w_.k, k, stride}, {w_.v, v, stride}};
      apply_linears(outputs, workspace);
    }
    const RopeAngles* const angles = spec_.rope >= 0 ? &in.angles[static_cast<size_t>(spec_.rope)] : nullptr;
    normalise_and_rotate(q, k, stride, in.n_tokens, angles);
    if (spec_.causal) {
      for (const SequenceSlice& slice : in.sequences) store_of(slice, in.layer).reserve(slice.n_tokens);
      // Sequences side by side: each on one thread; a single one is parallel inside.
      parallel_dynamic(in.sequences.size(), [&](size_t i) {
        const SequenceSlice& slice = in.sequences[i];
        const size_t offset = slice.begin * stride;
        store_of(slice, in.layer)
            .extend({k + offset, v + offset, stride, stride, slice.n_tokens, angles, slice.begin},
                    {q + offset, stride, spec_.n_heads, spec_.scale, spec_.softcap, nullptr, slice.role}, mixed + slice.begin * out_size_,
                    out_size_);
      });
    } else {
      for (const SequenceSlice& slice : in.sequences) {
        const size_t offset = slice.begin * stride;
        attend_to_all(q + offset, k + offset, v + offset, stride, slice, angles, mixed + slice.begin * out_size_);
      }
    }
    workspace.input().set(mixed, in.n_tokens, out_size_);
    w_.output.apply(workspace, y, w_.output.outputs());
  }

 private:
  KvShape shape() const { return {spec_.n_kv_heads, spec_.key_dim, spec_.value_dim, spec_.window, spec_.n_heads}; }

  static KvLayer& store_of(const SequenceSlice& slice, size_t layer) {
    return static_cast<KvLayer&>(*slice.state->layer(layer));
  }

  /// Head norms of q and k, then the rotation of q; keys go to the store unrotated.
  void normalise_and_rotate(float* q, float* k, size_t stride, size_t n_tokens, const RopeAngles* angles) const {
    parallel_for(n_tokens, 4, [&](size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) {
        if (w_.q_norm) w_.q_norm.apply(q + t * stride, spec_.n_heads, spec_.key_dim, q + t * stride);
        if (w_.k_norm) w_.k_norm.apply(k + t * stride, spec_.n_kv_heads, spec_.key_dim, k + t * stride);
        if (angles != nullptr) angles->rotate(q + t * stride, spec_.n_heads, spec_.key_dim, t);
      }
    });
  }

  /// Attention without a mask inside one sequence, straight from the projections.
  void attend_to_all(const float* q, float* k, const float* v, size_t stride, const SequenceSlice& slice,
                     const RopeAngles* angles, float* out) const {
    const size_t n = slice.n_tokens, group = spec_.n_heads / spec_.n_kv_heads;
    for (size_t t = 0; angles != nullptr && t < n; ++t) {
      angles->rotate(k + t * stride, spec_.n_kv_heads, spec_.key_dim, slice.begin + t);
    }
    parallel_dynamic(spec_.n_heads, [&](size_t head) {
      std::vector<uint32_t> first(n, 0), last(n, static_cast<uint32_t>(n));
      std::vector<float> max(n, -std::numeric_limits<float>::infinity()), sum(n, 0.0f);
      float* const result = out + head * spec_.value_dim;
      for (size_t t = 0; t < n; ++t) std::fill_n(result + t * out_size_, spec_.value_dim, 0.0f);
      const kernels::AttentionQueries rows{q + head * spec_.key_dim, n,           stride,        spec_.key_dim,
                                           spec_.value_dim,          spec_.scale, spec_.softcap};
      const size_t kv_head = head / group;
      const kernels::AttentionKeys keys{reinterpret_cast<const std::byte*>(k + kv_head * spec_.key_dim),
                                        reinterpret_cast<const std::byte*>(v + kv_head * spec_.value_dim),
                                        stride * sizeof(float),
                                        stride * sizeof(float),
                                        DType::kF32,
                                        first.data(),
                                        last.data()};
      const kernels::AttentionTriple triple{max.data(), sum.data(), result, out_size_};
      kernels::attend(rows, keys, triple);
      kernels::finish_attention(triple, n, spec_.value_dim, nullptr);
    });
  }

  AttentionSpec spec_;
  AttentionWeights w_;
  size_t q_size_, k_size_, v_size_, out_size_;
};

}  // namespace

std::unique_ptr<SequenceMixer> make_attention(const AttentionSpec& spec, const AttentionWeights& weights) {
  return std::make_unique<Attention>(spec, weights);
}

}  // namespace mneme
