#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// The last `window` tokens of a text. O(1) amortised a token; the tokens are contiguous.
class TokenHistory {
 public:
  static constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

  explicit TokenHistory(size_t window) : window_(window) {}

  void push(TokenId token) {
    tokens_.push_back(token);
    if (window_ != kUnlimited && tokens_.size() >= 2 * window_ + 64) {
      tokens_.erase(tokens_.begin(), tokens_.end() - static_cast<std::ptrdiff_t>(window_));
    }
  }
  /// The last min(n, window, tokens so far) tokens, oldest first.
  std::span<const TokenId> last(size_t n) const {
    n = std::min({n, window_, tokens_.size()});
    return {tokens_.data() + (tokens_.size() - n), n};
  }

 private:
  size_t window_;
  std::vector<TokenId> tokens_;
};

}  // namespace mneme
