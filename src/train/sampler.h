#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "budget/buffer.h"
#include "train/llama.h"

namespace mneme {
class ModelFile;
}

namespace mneme::train {

/// How the next id is drawn.
struct SampleOptions {
  float temperature = 0.8f;  ///< 0: the most likely id.
  float top_p = 0.95f;       ///< Draw among the most likely ids whose probabilities reach this sum.
  uint64_t seed = 0;
};

/// Continues many sequences at the same time with the weights being trained, one token a step for all of them, so that
/// the products are matrix products. For texts that training itself needs (sampled stories, samples in the log);
/// serving is the engine's business. Keys and values are kept transposed, [dimension, position], so that scores are
/// sums of long vectors even when heads are a few values wide.
class Sampler {
 public:
  /// Room for n_sequences of up to max_tokens (<= context) each.
  Sampler(Ledger& ledger, LlamaModel<float>& model, size_t n_sequences, size_t max_tokens);

  /// Continues each prompt (at least one token) until `stop` or max_tokens; returns the ids after the prompt, without
  /// the stop id. A sequence's draws depend on the seed, its index and the position alone. At most n_sequences prompts.
  std::vector<std::vector<int32_t>> run(const std::vector<std::vector<int32_t>>& prompts, int32_t stop,
                                        const SampleOptions& options);

 private:
  void step(std::span<const int32_t> ids, size_t position);
  /// y [n, rows] (+)= x w^T as training sees w: packed, rounded, with its adapters.
  void multiply(const float* x, const Parameter<float>& w, size_t n, bool accumulate, float* y);
  void attend(size_t layer, size_t n, size_t position);
  /// Adds what a mixture of experts makes of the normed rows to x, with the ops that train it.
  void mix(const ExpertLayer<float>& layer, size_t n);

  LlamaModel<float>& model_;
  size_t n_sequences_, max_tokens_;
  RopeTable<float> rope_;
  Buffer keys_, values_, scratch_;
  std::span<float> x_, normed_, q_, k_, v_, gate_, up_, logits_;
  std::span<float> rounded_, inner_;  ///< A rounded matrix, and the inner values of an adapter.
};

/// Draws an id from logits [n], which are overwritten. `uniform` in [0, 1).
int32_t draw(std::span<float> logits, const SampleOptions& options, float uniform);

/// Sizes of a llama GGUF file. Throws Error(kUnsupported or kCorruptData).
LlamaSizes llama_sizes_of(const ModelFile& file);
/// Copies the weights of a llama GGUF file into a model of the same sizes, but for what is frozen. Experts become
/// copies of the feed-forward networks; routers, and experts that start random, stay as they are. Throws Error that
/// names the tensor.
void load_weights(const ModelFile& file, LlamaModel<float>& model);

/// W = base + share * (W - base) for all that is trained, share in [0, 1]: between the model that training began from
/// and the trained one lie better compromises of what one has gained and lost (WiSE-FT, arXiv 2109.01903). Throws
/// Error(kUnsupported) for models whose weights are rounded in training, or experts.
void blend_with_base(const ModelFile& base, float share, LlamaModel<float>& model);

}  // namespace mneme::train
