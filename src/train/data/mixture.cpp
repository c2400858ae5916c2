#include "train/data/mixture.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "train/data/program_text.h"

namespace mneme::train {
namespace {

/// Shorter rooms at the end of a slot are filled with plain text.
constexpr size_t kLeastDialogueTokens = 64;

}  // namespace

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

Mixture::Mixture(const TrainTokenizer& tokenizer, const DataSources& sources, const MixtureOptions& options,
                 uint64_t seed)
    : tokenizer_(tokenizer), sources_(sources), options_(options), seed_(seed) {}

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
  const bool has_dialogues = options_.has_dialogues(sources_), has_programs = options_.generated_programs;
  if (sources_.texts != nullptr && ((!has_dialogues && !has_programs) || max_tokens < kLeastDialogueTokens ||
                                    random.next_double() < stage.plain_text_share)) {
    const std::string text = sources_.texts->any(random, Split::kTrain, std::max<size_t>(max_chars, 80));
    return encode_text(tokenizer_, text, options_.weights.text);
  }
  if (has_programs && (!has_dialogues || random.next_double() < options_.program_share)) {
    return encode_programs(tokenizer_, random, Split::kTrain, options_.weights);
  }
  if (sources_.chat != nullptr && (!options_.generated_dialogues || random.next_double() < options_.chat_share)) {
    return encode_dialogue(tokenizer_, sources_.chat->conversation(random, Split::kTrain), options_.weights);
  }
  DialogueOptions options;
  options.max_chars = max_chars;
  options.max_filler_chars = std::clamp<size_t>(max_chars / 4, 200, 2500);
  options.filler_share = stage.filler_share;
  const DialogueMaker dialogues(*sources_.texts, Split::kTrain);
  return encode_dialogue(tokenizer_, dialogues.make(random, options), options_.weights);
}

std::vector<std::string> tokenizer_sample(const DataSources& sources, const MixtureOptions& options, size_t n_chars,
                                          uint64_t seed) {
  std::vector<std::string> sample;
  size_t chars = 0;
  const auto add = [&](std::string text) {
    chars += text.size();
    sample.push_back(std::move(text));
  };
  const bool has_chat = sources.chat != nullptr, has_dialogues = options.has_dialogues(sources);
  const bool has_programs = options.generated_programs;
  uint64_t i = 0;
  while (chars < n_chars) {
    PhiloxStream random(seed ^ 0x746F6B656EULL, i);
    if (sources.texts != nullptr && (i % 2 == 0 || !(has_dialogues || has_programs))) {
      add(sources.texts->any(random, Split::kTrain, 2000));
    } else if (has_programs && (!has_dialogues || random.next_double() < options.program_share)) {
      add(program_file(random, Split::kTrain));
    } else if (has_chat && (!options.generated_dialogues || i % 4 == 1)) {
      for (const Turn& turn : sources.chat->conversation(random, Split::kTrain)) add(turn.text);
    } else {
      for (Turn& turn : DialogueMaker(*sources.texts, Split::kTrain).make(random, DialogueOptions{}))
        add(std::move(turn.text));
    }
    ++i;
  }
  return sample;
}

}  // namespace mneme::train
