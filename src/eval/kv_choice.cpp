#include "eval/kv_choice.h"

#include <algorithm>

#include "base/byte_size.h"

namespace mneme {

std::vector<KvPolicy> kv_candidates() {
  std::vector<KvPolicy> policies;
  for (const char* name : {"kivi:8", "kivi:4", "think:0.25+kivi:4", "kivi:3", "kivi:2,group=32", "kivi:2,group=64"}) {
    policies.push_back(KvPolicy::parse(name));
  }
  return policies;
}

KvChoice choose_among(std::vector<KvQuality> measured, const KvBound& bound) {
  std::stable_sort(measured.begin(), measured.end(), [](const KvQuality& a, const KvQuality& b) { return a.bytes < b.bytes; });
  KvChoice choice;
  const auto inside = [&](const KvQuality& q) {
    return q.divergence <= bound.divergence && q.same_choice >= bound.same_choice;
  };
  const auto found = std::find_if(measured.begin(), measured.end(), inside);
  const auto numbers = [](const KvQuality& q) {
    return fmt::format("{}: KL {:.4f} nats, {:.1f} % same choices, {} of {} a sequence of the test", q.policy, q.divergence,
                       100 * q.same_choice, format_byte_size(q.bytes), format_byte_size(q.plain_bytes));
  };
  if (found == measured.end()) {
    choice.policy = "f16";
    choice.reason = fmt::format("no smaller form stays within KL {} and {:.0f} % same choices; the nearest is {}", bound.divergence,
                                100 * bound.same_choice, numbers(measured.back()));
  } else {
    choice.policy = found->policy;
    choice.reason = numbers(*found);
    if (found != measured.begin()) choice.reason += fmt::format("; next below, {}", numbers(*std::prev(found)));
  }
  choice.measured = std::move(measured);
  return choice;
}

KvChoice choose_kv(Engine& engine, std::span<const TokenId> tokens, const KvBound& bound, const KvQualityOptions& options,
                   const std::function<void(uint64_t, uint64_t)>& progress) {
  return choose_among(measure_kv_quality(engine, tokens, kv_candidates(), options, progress), bound);
}

}  // namespace mneme
