#pragma once

#include <cstdint>
#include <vector>

#include "train/data/chat_encoder.h"
#include "train/data/sources.h"
#include "train/tape/batch.h"

namespace mneme::train {

/// One stretch of a curriculum.
struct StageOptions {
  size_t until_step = 0;         ///< Steps before this one belong to the stage (and not to an earlier one).
  size_t sequence_tokens = 512;  ///< Longest sequence.
  size_t batch_tokens = 8192;    ///< Tokens of a step, a multiple of sequence_tokens.
  double plain_text_share = 0.2; ///< Part of the sequences that are plain stories and passages.
  double filler_share = 0.4;     ///< Distraction inside dialogues.
  size_t short_every = 0;        ///< n > 0: every n-th sequence slot holds several shorter dialogues instead of a long one.
};

/// What sequences are made of, over all stages.
struct MixtureOptions {
  LossWeights weights;
  bool generated_dialogues = true;  ///< Dialogues of mneme's own generator; they need texts.
  double chat_share = 0.5;          ///< Part of the dialogues that are the user's own, where both kinds are there.
  bool generated_programs = false;  ///< Small programs with their descriptions (data/program_text.h).
  double program_share = 0.5;       ///< Part of programs among programs and dialogues, where both are there.

  bool has_dialogues(const DataSources& sources) const { return generated_dialogues || sources.chat != nullptr; }
};

/// A packed batch that owns its arrays.
struct OwnedBatch {
  std::vector<int32_t> tokens, targets;
  std::vector<float> weights;
  std::vector<uint32_t> sequence_starts;

  Batch view() const;  ///< loss_scale is 1 / sum of the weights.
};

/// Appends a sequence: predicting ids[i + 1] is a target of position i. At most `max_tokens` inputs are taken.
void append_sequence(const WeightedTokens& sequence, size_t max_tokens, OwnedBatch& batch);

/// Makes the batches of a training run. A batch is a function of (seed, step) and the stage alone, so a resumed run sees
/// the same data.
class Mixture {
 public:
  /// `sources` has texts or chat unless programs are generated, and texts when dialogues are; both arguments must
  /// outlive the mixture.
  Mixture(const TrainTokenizer& tokenizer, const DataSources& sources, const MixtureOptions& options, uint64_t seed);

  OwnedBatch batch(size_t step, const StageOptions& stage) const;

 private:
  void fill_slot(PhiloxStream& random, const StageOptions& stage, size_t slot, OwnedBatch& batch) const;
  WeightedTokens sequence(PhiloxStream& random, const StageOptions& stage, size_t max_tokens) const;

  const TrainTokenizer& tokenizer_;
  const DataSources& sources_;
  MixtureOptions options_;
  uint64_t seed_;
};

/// Texts like those that sequences are made of, at least `n_chars` in all, to train a tokenizer on: half plain text,
/// half dialogues or programs, where both are there.
std::vector<std::string> tokenizer_sample(const DataSources& sources, const MixtureOptions& options, size_t n_chars,
                                          uint64_t seed);

/// Average characters of a token in generated dialogues, for turning token limits into text lengths.
constexpr double kCharsPerToken = 3.0;

}  // namespace mneme::train
