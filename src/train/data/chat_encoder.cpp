#include "train/data/chat_encoder.h"

namespace mneme::train {
namespace {

std::string_view mark_of(Speaker speaker) {
  switch (speaker) {
    case Speaker::kSystem: return TrainTokenizer::kSystemMark;
    case Speaker::kUser: return TrainTokenizer::kUserMark;
    case Speaker::kAssistant: return TrainTokenizer::kAssistantMark;
  }
  return {};
}

float weight_of(const Turn& turn, const LossWeights& weights) {
  if (turn.kind == TurnKind::kText) return weights.text;
  if (turn.speaker != Speaker::kAssistant) return weights.user;
  return turn.kind == TurnKind::kAnswer || turn.kind == TurnKind::kRefusal ? weights.answer : weights.chatter;
}

}  // namespace

std::string_view chat_template() {
  return "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
         "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
}

void encode_turn(const TrainTokenizer& tokenizer, const Turn& turn, const LossWeights& weights, WeightedTokens& out) {
  const float weight = weight_of(turn, weights);
  out.push(tokenizer.id_of(mark_of(turn.speaker)), 0.0f);
  for (const TokenSpan& token : tokenizer.encode(turn.text)) {
    const bool in_value = turn.value_end > turn.value_begin && token.end > turn.value_begin && token.begin < turn.value_end;
    out.push(token.id, in_value ? weights.value : weight);
  }
  out.push(tokenizer.id_of(TrainTokenizer::kEndMark), turn.speaker == Speaker::kAssistant ? weight : 0.0f);
}

WeightedTokens encode_dialogue(const TrainTokenizer& tokenizer, std::span<const Turn> turns, const LossWeights& weights) {
  WeightedTokens result;
  result.push(TrainTokenizer::kBos, 0.0f);
  for (const Turn& turn : turns) encode_turn(tokenizer, turn, weights, result);
  return result;
}

WeightedTokens encode_text(const TrainTokenizer& tokenizer, std::string_view text, float weight) {
  WeightedTokens result;
  result.push(TrainTokenizer::kBos, 0.0f);
  for (const TokenSpan& token : tokenizer.encode(text)) result.push(token.id, weight);
  result.push(TrainTokenizer::kEos, weight);
  return result;
}

}  // namespace mneme::train
