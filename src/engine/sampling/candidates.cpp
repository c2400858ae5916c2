#include "engine/sampling/candidates.h"

#include <algorithm>

#include "base/error.h"

namespace mneme {
namespace {

void ban_outside(const TokenMask& mask, std::span<float> logits) {
  const std::span<const uint64_t> words = mask.words();
  for (size_t w = 0; w < words.size(); ++w) {
    const uint64_t word = words[w];
    if (word == ~uint64_t{0}) continue;
    const size_t begin = w * 64, end = std::min(begin + 64, logits.size());
    if (word == 0) {
      std::fill(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.begin() + static_cast<std::ptrdiff_t>(end),
                kBanned);
      continue;
    }
    for (size_t i = begin; i < end; ++i) logits[i] = (word >> (i - begin)) & 1 ? logits[i] : kBanned;
  }
}

}  // namespace

void Candidates::reset(std::span<const float> logits, const TokenMask* mask) {
  dense_ = true;
  logits_ = logits;
  list_.clear();
  n_ranked_ = 0;
  dense::maximum(logits);
  if (mask != nullptr) ban_outside(*mask, mutable_logits());
}

std::span<float> Candidates::mutable_logits() {
  if (logits_.data() != copy_.data() || copy_.empty()) {
    copy_.assign(logits_.begin(), logits_.end());
    logits_ = copy_;
  }
  return copy_;
}

std::span<Candidate> Candidates::items() {
  if (dense_) {
    list_.clear();
    list_.reserve(logits_.size());
    for (size_t i = 0; i < logits_.size(); ++i) {
      if (logits_[i] != kBanned) list_.push_back({static_cast<TokenId>(i), logits_[i], 0});
    }
    dense_ = false;
    n_ranked_ = 0;
  }
  return list_;
}

float Candidates::max_logit() {
  if (dense_) return dense::maximum(logits_).logit;
  if (list_.empty()) fail(ErrorCode::kInvalidArgument, "[sample] no token can be chosen: all are banned");
  if (n_ranked_ > 0) return list_.front().logit;
  float best = list_.front().logit;
  for (const Candidate& c : list_) best = std::max(best, c.logit);
  return best;
}

double Candidates::sum_exp() {
  const float max = max_logit();
  if (dense_) return dense::sum_exp(logits_, max);
  double total = 0;
  for (const Candidate& c : list_) total += exp_nonpositive(c.logit - max);
  return total;
}

void Candidates::change_logits(std::span<const TokenId> ids, const std::function<void(TokenId, float&)>& change) {
  if (ids.empty()) return;
  if (dense_) {
    const std::span<float> logits = mutable_logits();
    for (TokenId id : ids) {
      float& logit = logits[static_cast<size_t>(id)];
      if (logit != kBanned) change(id, logit);
    }
    return;
  }
  for (Candidate& c : list_) {
    if (std::binary_search(ids.begin(), ids.end(), c.id)) change(c.id, c.logit);
  }
  forget_order();
  keep_if([](const Candidate& c) { return c.logit != kBanned; });
}

std::span<Candidate> Candidates::rank(size_t n) {
  items();
  n = std::min(n, list_.size());
  if (n > n_ranked_) {
    const auto begin = list_.begin() + static_cast<std::ptrdiff_t>(n_ranked_);
    const auto middle = list_.begin() + static_cast<std::ptrdiff_t>(n);
    if (middle != list_.end()) std::nth_element(begin, middle, list_.end(), ranks_before);
    std::sort(begin, middle, ranks_before);
    n_ranked_ = n;
  }
  return list_;
}

std::span<Candidate> Candidates::normalize() {
  items();
  const float max = max_logit();
  double total = 0;
  for (Candidate& c : list_) {
    c.p = exp_nonpositive(c.logit - max);
    total += c.p;
  }
  const auto scale = static_cast<float>(1 / total);
  for (Candidate& c : list_) c.p *= scale;
  return list_;
}

void Candidates::keep_first(size_t n) {
  items();
  list_.resize(std::min(n, list_.size()));
  n_ranked_ = std::min(n_ranked_, list_.size());
}

void Candidates::keep_top(size_t n) {
  if (dense_ && n < logits_.size()) {
    dense::top(logits_, n, list_);
    dense_ = false;
    n_ranked_ = list_.size();
    return;
  }
  rank(n);
  keep_first(n);
}

void Candidates::keep_at_least(float threshold) {
  if (dense_) {
    dense::at_least(logits_, threshold, list_);
    dense_ = false;
    n_ranked_ = 0;
    return;
  }
  keep_if([threshold](const Candidate& c) { return c.logit >= threshold; });
}

void Candidates::assign(std::vector<Candidate>& list, bool ranked) {
  list_.swap(list);
  dense_ = false;
  n_ranked_ = ranked ? list_.size() : 0;
}

}  // namespace mneme
