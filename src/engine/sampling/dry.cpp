#include "engine/sampling/dry.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace mneme {

std::vector<std::pair<TokenId, size_t>> repetition_lengths(std::span<const TokenId> tokens, size_t limit,
                                                           size_t min_length) {
  const size_t n = tokens.size();
  const auto recent = [&](size_t i) { return tokens[n - 1 - i]; };  // index 0 is the newest token
  // z[k]: length of the longest common prefix of the reversed text and its suffix from k; [left, right) is the match found
  // so far that reaches furthest.
  std::vector<size_t> z(n, 0);
  std::map<TokenId, size_t> longest;
  for (size_t k = 1, left = 0, right = 0; k < n; ++k) {
    size_t length = k < right ? std::min(right - k, z[k - left]) : 0;
    while (k + length < n && recent(length) == recent(k + length)) ++length;
    z[k] = length;
    if (k + length > right) {
      left = k;
      right = k + length;
    }
    length = std::min(length, limit);
    if (length < min_length) continue;
    size_t& best = longest[recent(k - 1)];
    best = std::max(best, length);
  }
  return {longest.begin(), longest.end()};
}

Dry::Dry(float multiplier, float base, size_t allowed_length, std::span<const std::string> breakers)
    : multiplier_(multiplier), base_(base), allowed_length_(allowed_length), breakers_(breakers) {}

void Dry::accept(std::string_view piece) {
  ++n_since_breaker_;
  for (const char c : piece) {
    search_ = breakers_.step(search_, static_cast<unsigned char>(c));
    if (breakers_.match(search_)) n_since_breaker_ = 0;
  }
}

void Dry::apply(Candidates& candidates, std::span<const TokenId> tokens,
                const std::function<std::string(TokenId)>& piece_of) const {
  if (!active()) return;
  const size_t limit = std::min(n_since_breaker_, tokens.size());
  if (limit < allowed_length_) return;
  const auto holds_breaker = [&](TokenId id) {
    ByteMatcher::State state = ByteMatcher::kStart;
    for (const char c : piece_of(id)) {
      state = breakers_.step(state, static_cast<unsigned char>(c));
      if (breakers_.match(state)) return true;
    }
    return false;
  };
  std::vector<TokenId> ids;
  std::vector<float> loss;
  // Keeps base^exponent below the largest float, whose logarithm this is.
  const double max_exponent = base_ > 1.000001f ? 88.7228391 / std::log(base_) : 0;
  for (const auto& [id, length] : repetition_lengths(tokens, limit, allowed_length_)) {
    if (holds_breaker(id)) continue;
    double exponent = static_cast<double>(length - allowed_length_);
    if (max_exponent > 0) exponent = std::min(exponent, std::floor(max_exponent));
    ids.push_back(id);
    loss.push_back(static_cast<float>(multiplier_ * std::pow(base_, exponent)));
  }
  candidates.change_logits(ids, [&](TokenId id, float& logit) {
    logit -= loss[static_cast<size_t>(std::lower_bound(ids.begin(), ids.end(), id) - ids.begin())];
  });
}

bool Dry::restore(size_t n_since_breaker, ByteMatcher::State search) {
  if (search >= breakers_.n_states()) return false;
  n_since_breaker_ = n_since_breaker;
  search_ = search;
  return true;
}

}  // namespace mneme
