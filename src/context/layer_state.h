#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace mneme {

/// How the bytes of a layer's state grow with the tokens of its sequence. Known before admission, and exact.
struct StateSpec {
  uint64_t fixed_bytes = 0;      ///< Held from the first token on.
  uint64_t bytes_per_page = 0;   ///< One more page for every page_tokens tokens ...
  uint32_t page_tokens = 1;
  uint32_t max_pages = ~0u;      ///< ... but never more pages than this (sliding windows).
  bool can_truncate = true;      ///< False for states that cannot forget their last tokens (recurrent ones).

  /// Bytes that the state holds after `tokens` tokens.
  uint64_t bytes(uint64_t tokens) const {
    const uint64_t pages = (tokens + page_tokens - 1) / page_tokens;
    return fixed_bytes + bytes_per_page * (pages < max_pages ? pages : max_pages);
  }
};

/// State of one layer of one sequence: keys and values, or a recurrent state. Owned by the sequence, counted in the
/// ledger, used by one thread of control at a time.
class LayerState {
 public:
  virtual ~LayerState() = default;
  /// Bytes held now.
  virtual uint64_t bytes() const = 0;
  /// Tokens seen.
  virtual int64_t n_tokens() const = 0;
  /// Forgets the tokens from `n_tokens` on. Returns false, and changes nothing, when the state cannot do that.
  virtual bool truncate(int64_t n_tokens) = 0;
  /// An independent copy of everything (named, since it is expensive). Throws Error(kOutOfBudget).
  virtual std::unique_ptr<LayerState> deep_copy() const = 0;
};

}  // namespace mneme
