#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "context/rope.h"
#include "model/hyperparameters.h"
#include "model/layers.h"
#include "model/mixer.h"
#include "weights/block_stack.h"
#include "weights/model_file.h"

namespace mneme {

/// All weights of a model, visited in one place for loading, counting and listing.
struct ModelWeights {
  std::vector<std::unique_ptr<WeightMatrix>> matrices;
  std::deque<Buffer> vectors;  ///< Norm weights, biases and other small tensors as f32.
  std::unique_ptr<BlockStack> stack;  ///< Blocks of the BitStack matrices; null without any.

  /// Bytes that stay resident once loaded, without the stack.
  uint64_t resident_bytes(bool pack) const;
  /// Those of the packed copies among them.
  uint64_t packed_bytes() const;
  /// Makes the weights ready for products: packs what gains from it (when `pack`), counts everything in `ledger`.
  /// `progress(bytes)` is called after each matrix with the stored bytes done; `n_blocks` is for the stack, which comes last.
  /// Throws Error(kOutOfBudget).
  void load(Ledger& ledger, bool pack, size_t n_blocks, const std::function<void(uint64_t)>& progress);

  /// A matrix without bytes and a vector of zeros, for loading to go on after a problem was noted.
  const WeightMatrix* empty_matrix(uint64_t rows, uint64_t columns);
  const float* zeros(uint64_t size);

 private:
  std::vector<std::unique_ptr<WeightMatrix>> empty_;
  std::deque<std::vector<float>> zeros_;
  Buffer packed_;                    ///< The packed copies, one after another.
  std::vector<Reservation> mapped_;  ///< Of the matrices that are used as they lie in the file.
};

/// One layer: a sequence mixer and a channel mixer, each with a norm and a residual connection.
struct Block {
  enum class Residual : uint8_t {
    kPreNorm,   ///< x += post(mix(norm(x))), twice.
    kPostNorm,  ///< x = post(x + mix(x)), twice (encoders of the BERT family).
  };
  Residual residual = Residual::kPreNorm;
  Norm mixer_norm, mixer_post_norm;  ///< Either may be absent.
  std::unique_ptr<SequenceMixer> mixer;
  Norm channel_norm, channel_post_norm;
  std::unique_ptr<ChannelMixer> channel;
};

/// How token outputs become one vector for embeddings.
enum class Pooling : uint8_t { kNone = 0, kMean = 1, kCls = 2, kLast = 3 };

/// Rows of several sequences without padding.
struct Batch {
  std::span<const int32_t> tokens;           ///< [N]
  std::span<const int32_t> positions;        ///< [N], position inside its own sequence.
  std::span<const SequenceSlice> sequences;  ///< Cover the N rows in order.
};

/// A language model or encoder: data made by one of the functions in `arch/`. Weights are immutable once load() ran; all
/// methods are const and may run at once with different workspaces and states.
class Model {
 public:
  /// Reads hyperparameters and finds all tensors; touches no matrix. `file` must outlive the model.
  /// Throws Error for an unknown architecture (listing the known ones) or tensors that do not fit.
  /// `run_context` is the longest sequence that will be run (0: the trained length); it selects between tables of
  /// position factors where a model has two.
  static std::unique_ptr<Model> build(const ModelFile& file, Ledger& ledger, uint64_t run_context = 0);

  // The parts, filled by the architecture.
  Hyperparameters hyper;
  uint64_t run_context = 0;
  bool causal = true;                        ///< False: encoder, embeddings only.
  const WeightMatrix* token_embedding = nullptr;
  const WeightMatrix* position_embedding = nullptr;  ///< Learned positions, or null.
  const float* type_embedding = nullptr;     ///< Added to every token (row 0 of token_types), or null.
  Norm embedding_norm;                       ///< Right after the embedding; optional.
  float embedding_scale = 1;
  std::vector<RopeSpec> ropes;               ///< Kinds of rotation; layers name them by index.
  std::vector<Block> blocks;
  Norm output_norm;
  Linear output;                             ///< Empty for encoders.
  float logit_softcap = 0;                   ///< 0: off.
  Pooling pooling = Pooling::kNone;
  ModelWeights weights;
  size_t widest_adapter = 0;  ///< Largest rank that adapters add to a matrix (model/adapters.h).

  // Memory, known before anything is loaded.

  /// State bytes of one sequence of `tokens` tokens.
  uint64_t state_bytes(const StateOptions& options, uint64_t tokens) const;
  /// Working memory that keys and values of one sequence may take during a pass, beside the state.
  uint64_t kv_working_bytes(const StateOptions& options) const;
  /// Bytes that files of keys and values of one sequence take on this machine's disk at `tokens` tokens.
  uint64_t kv_disk_bytes(const StateOptions& options, uint64_t tokens) const;
  /// Workspace bytes of a forward pass of up to `n_tokens` rows, `n_outputs` of which want logits.
  size_t workspace_bytes(size_t n_tokens, size_t n_outputs) const;

  /// Makes an empty state for one sequence. Throws Error(kOutOfBudget).
  std::unique_ptr<SequenceState> make_state(const StateOptions& options, Ledger& ledger) const;

  /// Runs the batch through all blocks and advances the states. Returns the rows after the last block, before the output
  /// norm, [N, E], valid until the caller's workspace scope ends. The caller has checked token ids.
  const float* forward(const Batch& batch, Workspace& workspace) const;

  /// Normalised outputs of some rows of `hidden`: out [rows.size(), E] (for embeddings).
  void normalise(const float* hidden, std::span<const size_t> rows, float* out) const;
  /// Logits of some rows of `hidden`: out [rows.size(), n_vocab()]. Takes workspace for [rows.size(), E].
  void logits(const float* hidden, std::span<const size_t> rows, Workspace& workspace, float* out) const;

  /// Columns of the logits: rows of the output matrix, at least hyper.n_vocab. Those beyond it are set to -inf.
  size_t n_logits() const { return output.outputs(); }

 private:
  void embed(const Batch& batch, float* x) const;
  std::vector<KvPlace::Role> kv_roles(const KvPolicy& policy) const;
};

}  // namespace mneme
