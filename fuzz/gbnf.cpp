// Any text as a grammar, and any way through it. The input is the grammar up to a zero byte, then the walk: each byte
// asks for a token. A grammar that compiles must be usable in bounded time and memory (the limits of the fuzzer), its
// masks must be what its bytes say, and no walk may come to a place with nothing to say.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/grammar/grammar_state.h"
#include "engine/sampling/test_vocabulary.h"

namespace {

using namespace mneme;

constexpr TokenId kEnd = 256;
constexpr size_t kMaxBytes = StackAutomaton::kMaxBytes + (size_t{64} << 20);

void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", property);
  std::abort();
}

/// Every byte, the end, and longer tokens.
const ListVocabulary& vocabulary() {
  static const ListVocabulary kVocabulary = [] {
    std::vector<std::string> pieces;
    for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
    pieces.emplace_back("</s>");
    for (const char* piece :
         {"aa",    "ab",       "ba",       "abc", "aaaaaaaa", "(a)", "))", "a,",   "\"a", "\":",  "é",   "\xC3",
          "\xA9x", "\xF0\x9F", "\x98\x80", "€",   "12",       "0.",  "  ", "\n\t", "xyz", "the ", "b\nc"}) {
      pieces.emplace_back(piece);
    }
    return ListVocabulary(std::move(pieces), {kEnd});
  }();
  return kVocabulary;
}

/// The token from `wanted` on, going round, that the mask allows and that has text.
TokenId next_allowed(const TokenMask& mask, size_t wanted) {
  const size_t n = vocabulary().size();
  for (size_t i = 0; i < n; ++i) {
    const auto id = static_cast<TokenId>((wanted + i) % n);
    if (id != kEnd && mask.allows(id)) return id;
  }
  return kEnd;
}

void walk(const std::shared_ptr<const Grammar>& grammar, std::string_view choices) {
  static Ledger ledger;
  static const auto kTrie = std::make_shared<const VocabularyTrie>(vocabulary(), ledger);
  const auto matcher = TokenMatcher::create(grammar, kTrie, ledger);
  GrammarState state(matcher);
  StackAutomaton plain(grammar);
  StackAutomaton::SetId at = plain.start();
  const auto read = [&](StackAutomaton::SetId from, std::string_view text) {
    for (const char c : text) from = plain.step(from, static_cast<unsigned char>(c));
    return from;
  };
  for (const char choice : choices.substr(0, 200)) {
    const auto wanted = static_cast<unsigned char>(choice);
    const TokenMask& mask = state.mask();
    require(ledger.used(Tier::kRam) <= kMaxBytes, "the memory of a grammar is bounded");
    plain.limit_work();
    require(mask.allows(kEnd) == plain.is_complete(at), "the answer may end where the text is complete");
    for (const size_t i : {size_t{wanted}, 257 + size_t{wanted} % 23}) {
      const auto id = static_cast<TokenId>(i);
      const bool allowed = i != 0 && id != kEnd && read(at, vocabulary().piece(id)) != StackAutomaton::kDead;
      if (id != kEnd) require(mask.allows(id) == allowed, "the mask is what the bytes of a token say");
    }
    const TokenId next = next_allowed(mask, wanted);
    if (next == kEnd) {
      // Only NUL can be without a token.
      require(mask.allows(kEnd) || read(at, std::string_view("", 1)) != StackAutomaton::kDead, "there is a way on");
      return;
    }
    state.accept(next);
    at = read(at, vocabulary().piece(next));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), input.size());
  try {
    walk(std::make_shared<const Grammar>(input.substr(0, split)), input.substr(std::min(split + 1, size)));
  } catch (const Error&) {
  }
  return 0;
}
