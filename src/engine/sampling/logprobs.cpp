#include "engine/sampling/logprobs.h"

#include <cmath>

#include "base/error.h"
#include "engine/sampling/dense_logits.h"

namespace mneme {
namespace {

/// max + ln sum exp(logit - max)
double log_denominator(std::span<const float> logits) {
  const float max = dense::maximum(logits).logit;
  return max + std::log(dense::sum_exp(logits, max));
}

std::vector<TokenLogprob> best(std::span<const float> logits, size_t n_top, double denominator) {
  std::vector<Candidate> top;
  dense::top(logits, n_top, top);
  std::vector<TokenLogprob> out;
  for (const Candidate& c : top) out.push_back({c.id, static_cast<float>(c.logit - denominator)});
  return out;
}

}  // namespace

Logprobs token_logprobs(std::span<const float> logits, TokenId chosen, size_t n_top) {
  if (chosen < 0 || static_cast<size_t>(chosen) >= logits.size()) {
    fail(ErrorCode::kInvalidArgument, "[logprobs] expected an id below {}, found {}", logits.size(), chosen);
  }
  const double denominator = log_denominator(logits);
  const auto logprob = static_cast<float>(logits[static_cast<size_t>(chosen)] - denominator);
  return {{chosen, logprob}, best(logits, n_top, denominator)};
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, size_t n_top) {
  return best(logits, n_top, log_denominator(logits));
}

}  // namespace mneme
