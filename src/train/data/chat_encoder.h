#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/data/dialogue.h"
#include "train/data/tokenizer_trainer.h"

namespace mneme::train {

/// Token ids of one sequence and the loss weight of predicting each of them.
struct WeightedTokens {
  std::vector<int32_t> ids;
  std::vector<float> weights;  ///< weights[i]: of predicting ids[i] from what stands before it.

  void push(int32_t id, float weight) {
    ids.push_back(id);
    weights.push_back(weight);
  }
};

/// Loss weights by what a token is.
struct LossWeights {
  float answer = 1.0f;   ///< Answers and refusals, the end mark included.
  float value = 2.0f;    ///< The copied value inside an answer.
  float text = 0.5f;     ///< Stories, passages.
  float chatter = 0.2f;  ///< Other turns of the assistant.
  float user = 0.0f;     ///< What the user and the system say, except pasted text.
};

/// The chat template of models trained here, as Jinja: for each message <|role|>content<|end|>. The tokenizer puts <s> in
/// front, so the template does not.
std::string_view chat_template();

/// Appends a turn in the chat format.
void encode_turn(const TrainTokenizer& tokenizer, const Turn& turn, const LossWeights& weights, WeightedTokens& out);

/// A whole dialogue with <s> in front.
WeightedTokens encode_dialogue(const TrainTokenizer& tokenizer, std::span<const Turn> turns, const LossWeights& weights);

/// Plain text between <s> and </s>, all of it with one weight.
WeightedTokens encode_text(const TrainTokenizer& tokenizer, std::string_view text, float weight);

}  // namespace mneme::train
