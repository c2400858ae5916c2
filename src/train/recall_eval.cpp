#include "train/recall_eval.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace mneme::train {
namespace {

constexpr float kAnswerMark = 1.0f, kValueMark = 2.0f;

/// A probe in the batch being filled: its answer is the listed positions [first, first + count).
struct Probe {
  bool answerable;
  std::vector<int32_t> targets;
  std::vector<bool> in_value;
};

/// Fills up with unlabelled sequences of at most `context` tokens, so that one compiled schedule serves all batches.
void fill_up(OwnedBatch& batch, size_t n_tokens, size_t context) {
  while (batch.tokens.size() < n_tokens) {
    batch.tokens.resize(std::min(n_tokens, batch.tokens.size() + context), TrainTokenizer::kEos);
    batch.sequence_starts.push_back(static_cast<uint32_t>(batch.tokens.size()));
  }
  batch.targets.resize(n_tokens, 0);
  batch.weights.resize(n_tokens, 0);
}

/// Gathers probes into batches of a fixed size and scores them.
class ProbeRunner {
 public:
  ProbeRunner(Executor<float>& executor, LlamaModel<float>& model, size_t batch_tokens)
      : executor_(executor), model_(model), batch_tokens_(batch_tokens) {}

  void add(const WeightedTokens& tokens, bool answerable) {
    if (batch_.tokens.size() + tokens.ids.size() - 1 > batch_tokens_) flush();
    append_sequence(tokens, batch_tokens_, batch_);
    Probe probe{answerable, {}, {}};
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      if (tokens.weights[i] == 0) continue;
      probe.targets.push_back(tokens.ids[i]);
      probe.in_value.push_back(tokens.weights[i] == kValueMark);
    }
    probes_.push_back(std::move(probe));
  }

  void flush() {
    if (probes_.empty()) return;
    fill_up(batch_, batch_tokens_, model_.sizes().context);
    executor_.evaluate(batch_.view());
    auto best = model_.loss().best_ids().begin();
    for (const Probe& probe : probes_) {
      bool all = true, value = true;
      for (size_t i = 0; i < probe.targets.size(); ++i) {
        const bool right = best[static_cast<std::ptrdiff_t>(i)] == probe.targets[i];
        all = all && right;
        if (probe.in_value[i]) value = value && right;
      }
      if (probe.answerable) {
        ++score.n_answerable;
        score.value += value;
        score.answer += all;
      } else {
        ++score.n_refusal;
        score.refusal += *best == probe.targets[0];
      }
      best += static_cast<std::ptrdiff_t>(probe.targets.size());
    }
    probes_.clear();
    batch_ = {};
  }

  RecallScore score;

 private:
  Executor<float>& executor_;
  LlamaModel<float>& model_;
  size_t batch_tokens_;
  OwnedBatch batch_;
  std::vector<Probe> probes_;
};

}  // namespace

RecallScore measure_recall(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                           const TextSource& texts, size_t distance, size_t n_probes, size_t batch_tokens,
                           uint64_t seed) {
  const DialogueMaker maker(texts, Split::kHeldOut);
  LossWeights marks{};
  marks.answer = kAnswerMark;
  marks.value = kValueMark;
  marks.text = marks.chatter = marks.user = 0;
  ProbeRunner runner(executor, model, batch_tokens);
  const auto filler_chars = static_cast<size_t>(static_cast<double>(distance) * kCharsPerToken);
  for (size_t i = 0; i < n_probes + n_probes / 2; ++i) {
    PhiloxStream random(seed, (uint64_t{distance} << 24) | i);
    const bool answerable = i < n_probes;
    const std::vector<Turn> turns = maker.make_probe(random, 3 + random.next_below(4), filler_chars, answerable);
    WeightedTokens tokens = encode_dialogue(tokenizer, turns, marks);
    // Only the last turn is scored, and its end mark is not.
    tokens.weights.back() = 0;
    if (tokens.ids.size() - 1 > batch_tokens || tokens.ids.size() - 1 > model.sizes().context) continue;
    runner.add(tokens, answerable);
  }
  runner.flush();
  RecallScore score = runner.score;
  score.distance_tokens = distance;
  score.value /= static_cast<double>(std::max<size_t>(1, score.n_answerable));
  score.answer /= static_cast<double>(std::max<size_t>(1, score.n_answerable));
  score.refusal /= static_cast<double>(std::max<size_t>(1, score.n_refusal));
  return score;
}

namespace {

/// Mean loss of what next(random) makes, batch by batch until `n_tokens` were scored or `most` batches ran.
template <typename Next>
double mean_loss(Executor<float>& executor, LlamaModel<float>& model, size_t n_tokens, size_t batch_tokens,
                 uint64_t seed, Next next) {
  double sum = 0;
  size_t count = 0;
  const size_t most_batches = 2 + 16 * n_tokens / batch_tokens;
  uint64_t index = 0;
  for (size_t i = 0; i < most_batches && count < n_tokens; ++i) {
    OwnedBatch batch;
    while (batch.tokens.size() < batch_tokens) {
      PhiloxStream random(seed, index++);
      const size_t room = std::min(batch_tokens - batch.tokens.size(), model.sizes().context);
      append_sequence(next(random), room, batch);
    }
    if (std::all_of(batch.weights.begin(), batch.weights.end(), [](float w) { return w == 0; })) continue;
    executor.evaluate(batch.view());
    const auto& losses = model.loss().token_losses();
    sum += std::accumulate(losses.begin(), losses.end(), 0.0);
    count += losses.size();
  }
  if (count == 0)
    fail(ErrorCode::kInvalidArgument, "[evaluate] expected tokens to score within {} of context, found none",
         model.sizes().context);
  return sum / static_cast<double>(count);
}

}  // namespace

double measure_text_loss(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                         const TextSource& texts, size_t n_tokens, size_t batch_tokens, uint64_t seed) {
  constexpr size_t kPassageTokens = 256;
  return mean_loss(executor, model, n_tokens, batch_tokens, seed, [&](PhiloxStream& random) {
    return encode_text(tokenizer, texts.any(random, Split::kHeldOut, kPassageTokens * 4), 1.0f);
  });
}

double measure_dialogue_loss(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                             const TextSource& texts, size_t n_tokens, size_t batch_tokens, uint64_t seed) {
  const DialogueMaker maker(texts, Split::kHeldOut);
  LossWeights weights{};
  weights.answer = weights.value = weights.chatter = 1;
  weights.text = weights.user = 0;
  return mean_loss(executor, model, n_tokens, batch_tokens, seed,
                   [&](PhiloxStream& random) { return encode_dialogue(tokenizer, maker.make(random, {}), weights); });
}

double measure_chat_loss(Executor<float>& executor, LlamaModel<float>& model, const TrainTokenizer& tokenizer,
                         const ChatSource& chat, size_t n_tokens, size_t batch_tokens, uint64_t seed) {
  LossWeights weights{};
  weights.answer = weights.value = weights.chatter = 1;
  weights.text = weights.user = 0;
  return mean_loss(executor, model, n_tokens, batch_tokens, seed, [&](PhiloxStream& random) {
    return encode_dialogue(tokenizer, chat.conversation(random, Split::kHeldOut), weights);
  });
}

}  // namespace mneme::train
