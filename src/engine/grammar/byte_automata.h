#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <vector>

#include "engine/grammar/char_set.h"

namespace mneme {

/// Sets of code points as automata over the bytes of UTF-8. A character that is only partly known, which is what a
/// token may end with, is a state of such an automaton: its value so far and the number of bytes that remain, reduced
/// to what the set can still tell apart. The automata are deterministic and have no dead states, so a partial character
/// is accepted only if the set contains one of its completions. Equal sets, and equal ends of different sets, share
/// their states.
class ByteAutomata {
 public:
  using State = uint32_t;
  static constexpr State kRejected = std::numeric_limits<State>::max();
  static constexpr State kComplete = kRejected - 1;

  /// First state for a set that is not empty; adds it when it is new.
  State add(const CharSet& characters);
  /// Next state: kComplete after the last byte of a character of the set, kRejected when no character of it goes on so.
  State step(State state, unsigned char byte) const;
  /// Number of bytes that step() does not reject.
  size_t n_bytes(State state) const;
  size_t n_states() const { return first_edge_.size() - 1; }
  size_t bytes() const;

  /// Numbers the bytes so that bytes with the same number are the same to every state; returns how many numbers there
  /// are.
  size_t classify_bytes(std::array<uint8_t, 256>& class_of) const;

 private:
  /// Bytes first..last lead to `next`.
  struct Edge {
    uint8_t first, last;
    State next;
    auto operator<=>(const Edge&) const = default;
  };
  State state_with(const std::vector<Edge>& edges);
  State tail(const CharSet& characters, uint32_t base, int n_remaining);
  State whole_tail(int n_remaining);
  std::span<const Edge> edges(State state) const;

  std::vector<Edge> edges_;
  std::vector<size_t> first_edge_ = {0};
  std::map<CharSet, State> sets_;
  std::map<std::vector<Edge>, State> states_;
};

}  // namespace mneme
