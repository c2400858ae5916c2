#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "context/kv_policy.h"
#include "context/layer_state.h"
#include "context/rope.h"
#include "model/workspace.h"

namespace mneme {

/// State of one sequence: one entry a layer, null for layers that keep none.
class SequenceState {
 public:
  explicit SequenceState(std::vector<std::unique_ptr<LayerState>> layers) : layers_(std::move(layers)) {}

  LayerState* layer(size_t i) { return layers_[i].get(); }
  const LayerState* layer(size_t i) const { return layers_[i].get(); }
  size_t n_layers() const { return layers_.size(); }
  /// All layers, null for those that keep no state.
  std::vector<LayerState*> layers() const {
    std::vector<LayerState*> out;
    for (const auto& layer : layers_) out.push_back(layer.get());
    return out;
  }
  /// Tokens that every layer has seen.
  int64_t n_tokens() const { return n_tokens_; }
  void advance(int64_t n) { n_tokens_ += n; }
  uint64_t bytes() const;
  /// Forgets the tokens from `n_tokens` on in all layers. Returns false when a layer cannot (then the sequence must be
  /// computed anew; its state is not usable any more).
  bool truncate(int64_t n_tokens);
  /// An independent copy. Throws Error(kOutOfBudget).
  std::unique_ptr<SequenceState> deep_copy() const;
  /// Why the state is of no use any more, with the layer; empty: all is well. See LayerState::trouble().
  std::string trouble() const;
  /// Of all layers.
  FetchCounts fetches() const;
  /// Whether some layer can share its pages with other sequences.
  bool shares_pages() const;

 private:
  std::vector<std::unique_ptr<LayerState>> layers_;
  int64_t n_tokens_ = 0;
};

/// Consecutive tokens of one sequence inside a batch.
struct SequenceSlice {
  SequenceState* state;  ///< Null for models without state (encoders).
  size_t begin;          ///< First row of the batch that belongs to it.
  size_t n_tokens;
  TokenRole role = TokenRole::kGiven;
};

/// What a mixer gets: a ragged batch without padding.
struct MixerInput {
  size_t n_tokens;                           ///< N, rows of the batch.
  std::span<const SequenceSlice> sequences;  ///< Cover the N rows.
  size_t layer;                              ///< Index into SequenceState.
  std::span<const RopeAngles> angles;        ///< One table a rope kind of the model.
};

/// What a sequence's state will be allowed to hold.
struct StateOptions {
  KvPolicy kv;
  uint64_t max_tokens = 0;  ///< Of the sequence.
  uint32_t max_batch = 0;   ///< Tokens of one forward pass.
  KvPlace place = {};       ///< Of one layer; filled in by the model.
};

/// The part of a layer that moves information between the tokens of a sequence: attention over keys and values, or a
/// recurrence. Weights are immutable and shared; state is a separate object. Implementations are const and re-entrant,
/// accept any split of a sequence into calls, and keep the rows of different sequences apart.
class SequenceMixer {
 public:
  virtual ~SequenceMixer() = default;
  /// Shape of the keys and values that the layer keeps, if it does.
  virtual std::optional<KvShape> kv_shape() const { return std::nullopt; }
  /// Bytes of one sequence's state, exact.
  virtual StateSpec state_spec(const StateOptions& options) const = 0;
  /// An empty state, or null when state_spec() is always zero.
  virtual std::unique_ptr<LayerState> make_state(const StateOptions& options, Ledger& ledger) const = 0;
  /// Workspace bytes that forward() takes for n_tokens rows.
  virtual size_t workspace_bytes(size_t n_tokens) const = 0;
  /// y [N, E] = mix of workspace.input(), which is set to the normalised rows [N, E]. Updates the sequences' states.
  virtual void forward(const MixerInput& in, Workspace& workspace, float* y) const = 0;
};

/// The part of a layer that works on each token alone: feed-forward or mixture of experts.
class ChannelMixer {
 public:
  virtual ~ChannelMixer() = default;
  virtual size_t workspace_bytes(size_t n_tokens) const = 0;
  /// y [N, E] from workspace.input(), which is set to the normalised rows [N, E].
  virtual void forward(size_t n_tokens, Workspace& workspace, float* y) const = 0;
};

}  // namespace mneme
