#include "engine/sampling/penalties.h"

#include <algorithm>

namespace mneme {

LogitBias::LogitBias(std::span<const std::pair<TokenId, float>> bias) {
  std::map<TokenId, float> sums;
  for (const auto& [id, value] : bias) sums[id] += value;
  for (const auto& [id, value] : sums) {
    ids_.push_back(id);
    bias_.push_back(value);
  }
}

void LogitBias::apply(Candidates& candidates) const {
  candidates.change_logits(ids_, [&](TokenId id, float& logit) {
    logit += bias_[static_cast<size_t>(std::lower_bound(ids_.begin(), ids_.end(), id) - ids_.begin())];
  });
}

void Penalties::leave(TokenId token) {
  const auto found = counts_.find(token);
  if (found != counts_.end() && --found->second == 0) counts_.erase(found);
}

void Penalties::apply(Candidates& candidates) const {
  if (!active()) return;
  std::vector<TokenId> ids;
  ids.reserve(counts_.size());
  for (const auto& [id, count] : counts_) ids.push_back(id);
  candidates.change_logits(ids, [&](TokenId id, float& logit) {
    logit = logit <= 0 ? logit * repeat_ : logit / repeat_;
    logit -= static_cast<float>(counts_.at(id)) * frequency_ + presence_;
  });
}

}  // namespace mneme
