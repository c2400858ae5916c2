#include "context/token_chain.h"

#include <xxhash.h>

#include "context/layer_state.h"

namespace mneme {

std::vector<uint64_t> token_chain(std::string_view identity, std::span<const int32_t> tokens) {
  std::vector<uint64_t> chain = {XXH3_64bits(identity.data(), identity.size())};
  for (; tokens.size() >= kPageTokens; tokens = tokens.subspan(kPageTokens)) {
    chain.push_back(next_token_hash(chain.back(), tokens.first(kPageTokens)));
  }
  return chain;
}

uint64_t next_token_hash(uint64_t before, std::span<const int32_t> page) {
  return XXH3_64bits_withSeed(page.data(), page.size_bytes(), before);
}

uint64_t token_hash(std::span<const uint64_t> chain, std::span<const int32_t> tokens, size_t n_tokens) {
  const size_t pages = n_tokens / kPageTokens, rest = n_tokens % kPageTokens;
  if (rest == 0) return chain[pages];
  return next_token_hash(chain[pages], tokens.subspan(pages * kPageTokens, rest));
}

}  // namespace mneme
