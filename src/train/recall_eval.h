#pragma once

#include <cstdint>
#include <vector>

#include "train/data/mixture.h"
#include "train/llama.h"
#include "train/tape/executor.h"

namespace mneme::train {

/// How well facts are recalled at one distance, on held-out names and values, with the reference answer as context
/// (teacher forcing): a token counts when it is the most likely one.
struct RecallScore {
  size_t distance_tokens = 0;
  size_t n_answerable = 0, n_refusal = 0;
  double value = 0;    ///< Share of answers whose copied value is right, every token of it.
  double answer = 0;   ///< Share of answers that are right as a whole.
  double refusal = 0;  ///< Share of untold facts whose answer starts as a refusal.
};

/// Probes with `distance` tokens of distraction between facts and question; half as many refusals as answers. The probes
/// depend on the seed alone.
RecallScore measure_recall(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                           const TextSource& texts, size_t distance, size_t n_probes, size_t batch_tokens, uint64_t seed);

/// Mean loss per token on held-out passages, in nats, over about n_tokens.
double measure_text_loss(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                         const TextSource& texts, size_t n_tokens, size_t batch_tokens, uint64_t seed);

/// Mean loss per token of what the assistant says in generated dialogues about held-out facts, in nats, over about
/// n_tokens. Of two models this tells small differences that recall, which counts whole answers, doesn't show.
double measure_dialogue_loss(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                             const TextSource& texts, size_t n_tokens, size_t batch_tokens, uint64_t seed);

/// Mean loss per token of the assistant's messages in held-out conversations, in nats, over about n_tokens of them.
/// Conversations longer than the model's context are cut. Throws Error(kInvalidArgument) when none of them has an
/// answer inside the context.
double measure_chat_loss(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                         const ChatSource& chat, size_t n_tokens, size_t batch_tokens, uint64_t seed);

}  // namespace mneme::train
