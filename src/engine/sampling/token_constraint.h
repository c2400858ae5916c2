#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// One bit a token: set when the token may be chosen.
class TokenMask {
 public:
  TokenMask() = default;
  explicit TokenMask(size_t n_tokens, bool allowed = false) : n_tokens_(n_tokens), words_((n_tokens + 63) / 64) {
    if (allowed) set_all();
  }

  size_t size() const { return n_tokens_; }
  bool allows(TokenId id) const { return (words_[word(id)] >> (id & 63)) & 1; }
  void set(TokenId id) { words_[word(id)] |= bit(id); }
  void clear(TokenId id) { words_[word(id)] &= ~bit(id); }
  void set_all() {
    for (uint64_t& w : words_) w = ~uint64_t{0};
    if (n_tokens_ % 64 != 0) words_.back() = (uint64_t{1} << (n_tokens_ % 64)) - 1;
  }
  /// Union with a mask of the same size.
  void add(const TokenMask& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  /// Number of tokens allowed.
  size_t count() const {
    size_t n = 0;
    for (uint64_t w : words_) n += static_cast<size_t>(std::popcount(w));
    return n;
  }
  /// Token 64 i + j is bit j of word i; bits past size() are zero.
  std::span<const uint64_t> words() const { return words_; }
  bool operator==(const TokenMask&) const = default;

 private:
  static size_t word(TokenId id) { return static_cast<size_t>(id) / 64; }
  static uint64_t bit(TokenId id) { return uint64_t{1} << (id & 63); }

  size_t n_tokens_ = 0;
  std::vector<uint64_t> words_;
};

/// Restricts which token may come next; GrammarState is one. The sampler only asks; whoever drives the generation calls
/// accept() on constraint and sampler with the token that was taken.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  /// Whether this one token may come next; cheap, for testing a winner.
  virtual bool allows(TokenId id) = 0;
  /// All tokens that may come next; the reference holds until the constraint changes or another mask is asked for.
  virtual const TokenMask& mask() = 0;
};

}  // namespace mneme
