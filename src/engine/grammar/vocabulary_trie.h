#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "budget/ledger.h"
#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// The texts of all tokens as a tree of bytes, so that an automaton can test a whole vocabulary without reading common
/// beginnings twice. The nodes lie in preorder: the subtree of a node is the range up to its `end`, and so are the
/// tokens in it. Built once a vocabulary and shared; about 12 bytes a node and 4 a token.
///
/// Left out, since a grammar never allows them by their text: tokens without text, tokens that begin with NUL, and
/// tokens that end the answer.
class VocabularyTrie {
 public:
  struct Node {
    uint32_t end;  ///< first node behind the subtree
    uint32_t
        first_token;  ///< index into tokens() of the node's own tokens; they end where those of the next node begin
    uint16_t depth;   ///< 1 for the first byte
    unsigned char byte;
  };

  /// `vocabulary` and `ledger` must outlive the trie, whose bytes count as Tag::kCache. Throws Error(kUnsupported) for
  /// a token with more than 65535 bytes, Error(kOutOfBudget).
  VocabularyTrie(const VocabularyView& vocabulary, Ledger& ledger);

  size_t n_nodes() const { return nodes_.size() - 1; }
  /// REQUIRES i <= n_nodes(); the last one is a sentinel that ends the tokens.
  const Node& node(size_t i) const { return nodes_[i]; }
  /// Tokens whose text ends at node i.
  std::span<const TokenId> tokens_at(size_t i) const { return tokens(i, i + 1); }
  /// Tokens whose text begins with the path to node i.
  std::span<const TokenId> tokens_under(size_t i) const { return tokens(i, nodes_[i].end); }

  /// Length of the longest text in the trie in bytes.
  size_t longest_text() const { return longest_text_; }
  const VocabularyView& vocabulary() const { return vocabulary_; }
  std::span<const TokenId> ends_of_generation() const { return ends_; }
  /// The tokens that begin with NUL.
  std::span<const TokenId> left_out() const { return left_out_; }
  /// Bytes held and reserved.
  size_t bytes() const { return memory_.bytes(); }

 private:
  std::span<const TokenId> tokens(size_t first, size_t end) const {
    return std::span(tokens_).subspan(nodes_[first].first_token, nodes_[end].first_token - nodes_[first].first_token);
  }

  const VocabularyView& vocabulary_;
  Reservation memory_;
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;
  std::vector<TokenId> ends_;
  std::vector<TokenId> left_out_;
  size_t longest_text_ = 0;
};

}  // namespace mneme
