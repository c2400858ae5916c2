#include "cli/fetch_counts.h"
#include "cli/generation_json.h"

#include <fmt/format.h>

#include "base/byte_size.h"
#include "cli/plan_table.h"

namespace mneme::cli {
namespace {

/// Text that JSON can carry: a piece may be part of a character.
std::string printable(const std::string& bytes) { return Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace); }

Json token_json(TokenId id, float logprob, const Engine& engine) {
  return {{"id", id}, {"piece", Json::parse(printable(std::string(engine.tokenizer().piece(id, true))))}, {"logprob", logprob}};
}

double decode_rate(const GenerationResult& result) {
  const size_t n = result.tokens.size();
  return n > 1 && result.decode_seconds > 0 ? static_cast<double>(n - 1) / result.decode_seconds : 0;
}

}  // namespace

Json generation_json(const GenerationResult& result, const Engine& engine) {
  Json ids = Json::array(), logprobs = Json::array();
  for (const GeneratedToken& token : result.tokens) {
    ids.push_back(token.token);
    if (token.top.empty() && token.logprob == 0) continue;
    Json entry = token_json(token.token, token.logprob, engine);
    entry["top"] = Json::array();
    for (const TokenLogprob& other : token.top) entry["top"].push_back(token_json(other.id, other.logprob, engine));
    logprobs.push_back(entry);
  }
  Json out = {{"text", result.text},
              {"tokens", ids},
              {"finish_reason", finish_reason_name(result.reason)},
              {"prompt_tokens", result.n_prompt},
              {"reused_tokens", result.n_reused},
              {"cached_tokens", result.n_cached},
              {"match_stop", match_stop_name(result.match_stop)},
              {"prompt_seconds", result.prompt_seconds},
              {"decode_seconds", result.decode_seconds},
              {"decode_tokens_per_second", decode_rate(result)}};
  if (result.fetches.wanted > 0) {
    out["kv_fetches"] = fetch_json(result.fetches);
  }
  if (!result.stop_string.empty()) out["stop_string"] = result.stop_string;
  if (!logprobs.empty()) out["logprobs"] = logprobs;
  if (const BlockStack* stack = engine.stack()) out["weights"] = stack_json(*stack);
  return out;
}

std::string generation_summary(const GenerationResult& result) {
  std::string fetches;
  if (result.fetches.wanted > 0) fetches = ", " + fetch_text(result.fetches);
  return fmt::format("{} prompt tokens ({} reused) in {:.2f} s, {} tokens at {:.1f} tokens/s, ended by {}{}", result.n_prompt,
                     result.n_reused, result.prompt_seconds, result.tokens.size(), decode_rate(result),
                     finish_reason_name(result.reason), fetches);
}

}  // namespace mneme::cli
