#include "eval/kv_recall.h"

#include <memory>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "engine/chat_session.h"
#include "engine/scheduler.h"
#include "train/data/chat_encoder.h"
#include "train/data/dialogue.h"
#include "train/data/mixture.h"

namespace mneme {
namespace {

constexpr uint32_t kAnswerTokens = 48;

std::string_view role_of(train::Speaker speaker) {
  switch (speaker) {
    case train::Speaker::kSystem: return "system";
    case train::Speaker::kUser: return "user";
    default: return "assistant";
  }
}

}  // namespace

KvRecall measure_kv_recall(Engine& engine, const KvPolicy& policy, const train::TextSource& texts,
                           const KvRecallOptions& options, const std::function<void(uint64_t, uint64_t)>& progress) {
  const std::optional<ChatTemplate> chat = model_chat_template(engine);
  if (!chat) fail(ErrorCode::kUnsupported, "[kv recall] expected a model with a chat template, found {}", engine.file().path());
  const train::DialogueMaker maker(texts, train::Split::kHeldOut);
  const auto filler_chars = static_cast<size_t>(static_cast<double>(options.distance) * train::kCharsPerToken);
  StateOptions kind = engine.state_options();
  kind.kv = policy;
  KvRecall result;
  uint32_t right = 0;
  for (uint32_t i = 0; i < options.probes; ++i) {
    PhiloxStream random(options.seed, (uint64_t{options.distance} << 24) | i);
    const std::vector<train::Turn> turns = maker.make_probe(random, 3 + random.next_below(4), filler_chars, true);
    Json messages = Json::array();
    for (size_t t = 0; t + 1 < turns.size(); ++t) {
      messages.push_back({{"role", role_of(turns[t].speaker)}, {"content", turns[t].text}});
    }
    const train::Turn& answer = turns.back();
    const std::string value = answer.text.substr(answer.value_begin, answer.value_end - answer.value_begin);
    GenerationRequest request;
    request.prompt = engine.tokenizer().encode_segments(chat->render(messages, RenderOptions()), true);
    request.max_tokens = kAnswerTokens;
    request.sampling.temperature = 0;
    if (request.prompt.size() + kAnswerTokens > engine.plan().context) continue;
    request.conversation = std::make_shared<Conversation>();
    request.conversation->state = engine.model().make_state(kind, engine.ledger());
    const GenerationResult generated = generate(engine, std::move(request));
    ++result.n_probes;
    right += generated.text.find(value) != std::string::npos ? 1 : 0;
    progress(i + 1, options.probes);
  }
  if (result.n_probes == 0) {
    fail(ErrorCode::kContextOverflow, "[kv recall] expected a context of more than {} tokens, found {}", options.distance,
         engine.plan().context);
  }
  result.recalled = static_cast<double>(right) / result.n_probes;
  return result;
}

}  // namespace mneme
