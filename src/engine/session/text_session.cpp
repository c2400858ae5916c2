#include "engine/session/text_session.h"

#include "base/error.h"
#include "engine/scheduler.h"

namespace mneme {

GenerationResult continue_text(Engine& engine, SessionRecorder& recorder, const std::string& text,
                               GenerationRequest request, PrefixCache* cache) {
  if (recorder.details().contains("messages")) {
    fail(ErrorCode::kInvalidArgument, "[session] {}: expected plain text, found a chat: leave out --raw",
         recorder.session().path());
  }
  request.prompt = recorder.tokens();
  if (text.empty()) {
    if (request.prompt.empty())
      fail(ErrorCode::kInvalidArgument, "[session] expected a text to begin with, found none");
    if (recorder.details().contains("sampler")) request.sampler_state = recorder.details().at("sampler");
  } else {
    const std::vector<TokenId> more = engine.tokenizer().encode(text, {request.prompt.empty(), true});
    request.prompt.insert(request.prompt.end(), more.begin(), more.end());
  }
  recorder.follow(request, [](const std::string&) { return Json::object(); });
  GenerationResult result = generate(engine, std::move(request), cache);
  recorder.save(Json::object());
  return result;
}

}  // namespace mneme
