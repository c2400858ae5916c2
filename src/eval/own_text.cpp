#include "eval/own_text.h"

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"
#include "engine/scheduler.h"

namespace mneme {
namespace {

/// Words of the random numbers that first tokens are drawn with.
constexpr uint64_t kFirstTokenStream = 0x6f776e;

/// The tokens that a piece may begin with.
std::vector<TokenId> normal_tokens(const Engine& engine) {
  std::vector<TokenId> out;
  const auto n = std::min<size_t>(engine.tokenizer().vocab_size(), engine.model().hyper.n_vocab);
  for (size_t id = 0; id < n; ++id) {
    if (engine.tokenizer().kind(static_cast<TokenId>(id)) == TokenKind::kNormal)
      out.push_back(static_cast<TokenId>(id));
  }
  if (out.empty()) fail(ErrorCode::kUnsupported, "[own text] expected a vocabulary with normal tokens, found none");
  return out;
}

}  // namespace

std::vector<TokenId> own_text(Engine& engine, size_t n_tokens, const OwnTextOptions& options) {
  std::vector<TokenId> tokens, firsts;
  if (options.first == OwnTextOptions::First::kVocabulary) firsts = normal_tokens(engine);
  PhiloxStream random(options.seed, kFirstTokenStream);
  const uint64_t context = engine.plan().context;
  const uint64_t most = options.piece > 0 ? std::min<uint64_t>(options.piece, context) : context;
  for (uint64_t seed = options.seed; tokens.size() < n_tokens; ++seed) {
    GenerationRequest request;
    request.prompt = engine.tokenizer().encode("", {true, true});
    if (request.prompt.empty() && firsts.empty()) request.prompt = engine.tokenizer().encode("\n", {true, true});
    if (!firsts.empty()) request.prompt.push_back(firsts[random.next_below(firsts.size())]);
    if (request.prompt.size() >= most) {
      fail(ErrorCode::kInvalidArgument, "[own text] expected pieces of more than {} tokens, found {}",
           request.prompt.size(), most);
    }
    request.sampling.temperature = 1;
    request.sampling.seed = seed;
    request.max_tokens =
        static_cast<uint32_t>(std::min<uint64_t>(n_tokens - tokens.size(), most - request.prompt.size()));
    tokens.insert(tokens.end(), request.prompt.begin(), request.prompt.end());
    for (const GeneratedToken& generated : generate(engine, std::move(request)).tokens)
      tokens.push_back(generated.token);
  }
  tokens.resize(n_tokens);
  return tokens;
}

}  // namespace mneme
