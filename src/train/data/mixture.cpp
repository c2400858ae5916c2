#include "train/data/mixture.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace mneme::train {

Batch OwnedBatch::view() const {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  return {tokens, targets, weights, sequence_starts, total > 0 ? 1.0 / total : 0.0};
}

void append_sequence(const WeightedTokens& sequence, size_t max_tokens, OwnedBatch& batch) {
  if (batch.sequence_starts.empty()) batch.sequence_starts.push_back(0);
  const size_t n = std::min(sequence.ids.size() - 1, max_tokens);
  for (size_t i = 0; i < n; ++i) {
    batch.tokens.push_back(sequence.ids[i]);
    batch.targets.push_back(sequence.ids[i + 1]);
    batch.weights.push_back(sequence.weights[i + 1]);
  }
  batch.sequence_starts.push_back(static_cast<uint32_t>(batch.tokens.size()));
}

Mixture::Mixture(const TrainTokenizer& tokenizer, const TextSource& texts, LossWeights weights, uint64_t seed)
    : tokenizer_(tokenizer), texts_(texts), dialogues_(texts, Split::kTrain), weights_(weights), seed_(seed) {}

OwnedBatch Mixture::batch(size_t step, const StageOptions& stage) const {
  OwnedBatch result;
  for (size_t slot = 0; slot < stage.batch_tokens / stage.sequence_tokens; ++slot) {
    PhiloxStream random(seed_, (uint64_t{step} << 16) | slot);
    fill_slot(random, stage, slot, result);
  }
  return result;
}

/// Fills exactly sequence_tokens positions: sequences until the slot is full, the last one cut.
void Mixture::fill_slot(PhiloxStream& random, const StageOptions& stage, size_t slot, OwnedBatch& batch) const {
  const size_t end = batch.tokens.size() + stage.sequence_tokens;
  const bool shorter = stage.short_every > 0 && slot % stage.short_every == stage.short_every - 1;
  while (batch.tokens.size() < end) {
    const size_t room = end - batch.tokens.size();
    const size_t wanted = shorter ? std::min<size_t>(room, 200 + random.next_below(600)) : room;
    append_sequence(sequence(random, stage, wanted), room, batch);
  }
}

WeightedTokens Mixture::sequence(PhiloxStream& random, const StageOptions& stage, size_t max_tokens) const {
  const auto max_chars = static_cast<size_t>(kCharsPerToken * static_cast<double>(max_tokens));
  if (max_tokens < 64 || random.next_double() < stage.plain_text_share) {
    return encode_text(tokenizer_, texts_.any(random, Split::kTrain, std::max<size_t>(max_chars, 80)), weights_.text);
  }
  DialogueOptions options;
  options.max_chars = max_chars;
  options.max_filler_chars = std::clamp<size_t>(max_chars / 4, 200, 2500);
  options.filler_share = stage.filler_share;
  return encode_dialogue(tokenizer_, dialogues_.make(random, options), weights_);
}

}  // namespace mneme::train
