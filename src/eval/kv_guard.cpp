#include "eval/kv_guard.h"

#include <algorithm>

namespace mneme {

KvQuality KvGuard::measure(std::span<const TokenId> window, const KvPolicy& policy) {
  KvQualityOptions options;
  options.window = options_.window;
  options.first_scored = options_.window / 2;
  options.max_windows = 1;
  return measure_kv_quality(engine_, window, {&policy, 1}, options, [](uint64_t, uint64_t) {}).front();
}

std::optional<KvGuardFinding> KvGuard::look(std::span<const TokenId> tokens) {
  if (tokens.size() < looked_at_) looked_at_ = 0;
  if (tokens.size() < options_.window || tokens.size() - looked_at_ < (looked_at_ == 0 ? 0 : options_.every)) {
    return std::nullopt;
  }
  looked_at_ = tokens.size();
  const auto window = tokens.last(options_.window);
  const auto inside = [&](const KvQuality& q) {
    return q.divergence <= options_.bound.divergence && q.same_choice >= options_.bound.same_choice;
  };
  KvGuardFinding finding;
  finding.now = measure(window, engine_.state_options().kv);
  finding.inside = inside(finding.now);
  finding.policy = finding.now.policy;
  finding.reason = fmt::format("KL {:.4f} nats and {:.1f} % same choices on the last {} tokens, {} KL {} and {:.0f} %",
                               finding.now.divergence, 100 * finding.now.same_choice, options_.window,
                               finding.inside ? "within" : "outside", options_.bound.divergence,
                               100 * options_.bound.same_choice);
  if (finding.inside || !may_step_) return finding;

  std::vector<KvPolicy> larger;
  for (KvPolicy& candidate : kv_candidates()) larger.push_back(std::move(candidate));
  const auto bytes = [&](const KvPolicy& policy) {
    StateOptions options = engine_.state_options();
    options.kv = policy;
    return engine_.model().state_bytes(options, options_.window);
  };
  std::erase_if(larger, [&](const KvPolicy& policy) { return bytes(policy) <= finding.now.bytes; });
  std::stable_sort(larger.begin(), larger.end(), [&](const auto& a, const auto& b) { return bytes(a) < bytes(b); });
  KvPolicy chosen = KvPolicy::parse("f16");
  for (const KvPolicy& policy : larger) {
    if (!inside(measure(window, policy))) continue;
    chosen = policy;
    break;
  }
  const uint64_t context = engine_.plan().context;
  engine_.change_kv(chosen);
  finding.policy = chosen.name();
  finding.reason += fmt::format("; from now on {}", finding.policy);
  if (engine_.plan().context < context) {
    finding.reason += fmt::format(", whose context is {} tokens in the same memory (before: {})", engine_.plan().context, context);
  }
  return finding;
}

}  // namespace mneme
