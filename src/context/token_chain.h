#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mneme {

/// Hashes of the beginnings of a token sequence, page by page: h[0] = XXH3(identity), h[i + 1] = XXH3(tokens of page i,
/// seed h[i]), so equal hashes mean equal identities and equal tokens from the first on. Not secret and not
/// collision-free against an attacker: where that matters the tokens themselves are compared too.
///
/// Returns one hash more than the sequence has full pages of kPageTokens tokens. `identity` tells apart what must never
/// be mixed: model, policy, tenant.
std::vector<uint64_t> token_chain(std::string_view identity, std::span<const int32_t> tokens);

/// One link: the hash of a page behind those that `before` stands for.
uint64_t next_token_hash(uint64_t before, std::span<const int32_t> page);

/// Hash of the first n_tokens tokens, given the chain of the whole sequence.
uint64_t token_hash(std::span<const uint64_t> chain, std::span<const int32_t> tokens, size_t n_tokens);

}  // namespace mneme
