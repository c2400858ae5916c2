#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/tokenizer/prefix_tree.h"
#include "model/tokenizer/token_table.h"

namespace mneme {

/// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin, end;
};

/// A part of a text: one token, or raw text (token < 0).
struct Fragment {
  TokenId token;
  TextRange range;  ///< In the text; of a token: its spelling.
};

/// Cuts text at the literal spellings of special tokens before any other tokenization.
///
/// The longest spelling goes first over the whole text, at each of its occurrences from left to right, then the next
/// one in what is left; of equally long ones the lower id. User-defined tokens are found everywhere, control and
/// unknown ones only inside trusted ranges. Cost: about one tree walk a byte, and one more for each shorter candidate
/// at a place where a longer one lost.
class SpecialPartition {
 public:
  SpecialPartition() = default;
  /// `name` is general.name and `pre` the pre-tokenizer: a few families have tokens that swallow neighbouring white
  /// space, which model files do not say.
  SpecialPartition(const TokenTable& table, std::string_view name, std::string_view pre);

  /// `trusted`: ascending, disjoint ranges in which control tokens are recognised.
  std::vector<Fragment> split(std::string_view text, std::span<const TextRange> trusted) const;

  size_t memory_bytes() const;

 private:
  struct Special {
    TokenId id;
    uint32_t bytes;
    uint32_t length_rank;  ///< 0 for the longest spellings, 1 for the next shorter ones.
    bool needs_trust;
    bool strip_left = false, strip_right = false;
  };
  struct Candidate {
    uint32_t special;  ///< Index into specials_.
    size_t begin;
    auto operator<=>(const Candidate&) const = default;
  };
  struct Match {
    TokenId id;
    TextRange spelling;
    TextRange swallowed;  ///< The spelling with the white space that it takes along.
  };

  /// Index of the longest special that starts at text[begin] and has less than `below` bytes, or -1.
  int32_t longest_at(std::string_view text, size_t begin, std::span<const TextRange> trusted, size_t below) const;
  /// All matches, in the order of the text.
  std::vector<Match> find_matches(std::string_view text, std::span<const TextRange> trusted) const;

  std::vector<Special> specials_;  ///< In order of priority: longest first, then ascending id.
  size_t n_lengths_ = 0;
  PrefixTree tree_;  ///< Spelling to index into specials_.
};

}  // namespace mneme
