#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mneme {

/// Finds any of a set of byte strings in a stream, one byte at a time (Aho and Corasick, 1975). The matcher is
/// immutable; the place in the stream is a State, a plain number that the caller keeps and may copy. O(1) a byte,
/// amortised.
///
/// Used for stop strings, for the sequence breakers of DRY and for the trigger words of lazy grammars.
class ByteMatcher {
 public:
  using State = uint32_t;
  static constexpr State kStart = 0;

  /// Patterns must not be empty; there may be none.
  explicit ByteMatcher(std::span<const std::string> patterns);

  State step(State state, unsigned char byte) const;
  /// Length of the longest end of the stream that begins a pattern (or is one): what must be held back.
  uint32_t depth(State state) const { return nodes_[state].depth; }
  /// Index of the longest pattern that ends at this place.
  std::optional<size_t> match(State state) const {
    return nodes_[state].pattern == kNone ? std::nullopt : std::optional<size_t>(nodes_[state].pattern);
  }
  /// Number of states; every State is below it.
  size_t n_states() const { return nodes_.size(); }
  /// Bytes held, about.
  size_t bytes() const { return nodes_.size() * (sizeof(Node) + sizeof(Node::children[0]) + 16); }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;
    uint32_t depth = 0;
    uint32_t fallback = kStart;  ///< longest proper suffix that is a prefix of a pattern
    uint32_t pattern = kNone;    ///< longest pattern that is a suffix
  };

  uint32_t child(uint32_t node, unsigned char byte) const;

  std::vector<Node> nodes_;
};

}  // namespace mneme
