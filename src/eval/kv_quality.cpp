#include "eval/kv_quality.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/error.h"
#include "eval/perplexity.h"

namespace mneme {
namespace {

/// Tokens whose logits of all policies exist at the same time.
constexpr size_t kStepTokens = 32;

double log_of_sum(std::span<const float> logits, double max) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - max);
  return max + std::log(sum);
}

size_t best_of(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Appends tokens to a sequence and returns the logits of every one, [n, n_vocab].
std::vector<float> logits_of(Engine& engine, SequenceState& state, std::span<const TokenId> tokens, TokenRole role) {
  const Model& model = engine.model();
  const size_t n_vocab = model.hyper.n_vocab;
  std::vector<float> all(tokens.size() * n_vocab);
  engine.run(state, tokens, [&](size_t first, size_t n, const float* hidden) {
    for (size_t i = 0; i < n; ++i) {
      const Workspace::Scope scope(engine.workspace());
      float* const row = engine.workspace().floats(model.n_logits());
      model.logits(hidden, {&i, 1}, engine.workspace(), row);
      std::copy_n(row, n_vocab, all.data() + (first + i) * n_vocab);
    }
  }, role);
  return all;
}

}  // namespace

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  const double p_total = log_of_sum(p_logits, static_cast<double>(*std::max_element(p_logits.begin(), p_logits.end())));
  const double q_total = log_of_sum(q_logits, static_cast<double>(*std::max_element(q_logits.begin(), q_logits.end())));
  double sum = 0;
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = static_cast<double>(p_logits[i]) - p_total, log_q = static_cast<double>(q_logits[i]) - q_total;
    const double p = std::exp(log_p);
    if (p > 0) sum += p * (log_p - log_q);
  }
  return std::max(0.0, sum);
}

std::vector<KvQuality> measure_kv_quality(Engine& engine, std::span<const TokenId> tokens, std::span<const KvPolicy> policies,
                                          const KvQualityOptions& options,
                                          const std::function<void(uint64_t, uint64_t)>& progress) {
  const Model& model = engine.model();
  const size_t window = options.window, n_vocab = model.hyper.n_vocab;
  if (!model.output) fail(ErrorCode::kUnsupported, "[kv quality] {} has no logits", engine.file().path());
  if (options.first_scored + 1 >= window) {
    fail(ErrorCode::kInvalidArgument, "[kv quality] expected at least one scored token in a window of {}, found {} unscored",
         window, options.first_scored);
  }
  engine.check_room(0, window);
  uint64_t n_windows = tokens.size() / window;
  if (n_windows == 0) {
    fail(ErrorCode::kInvalidArgument, "[kv quality] expected at least {} tokens of text, found {}", window, tokens.size());
  }
  if (options.max_windows > 0) n_windows = std::min(n_windows, options.max_windows);

  StateOptions plain = engine.state_options();
  plain.kv = KvPolicy::parse("f16");
  std::vector<KvQuality> results(policies.size());
  std::vector<StateOptions> kinds;
  for (size_t i = 0; i < policies.size(); ++i) {
    kinds.push_back(plain);
    kinds.back().kv = policies[i];
    results[i].policy = policies[i].name();
    results[i].bytes = model.state_bytes(kinds.back(), window);
    results[i].plain_bytes = model.state_bytes(plain, window);
  }
  double plain_nll = 0;
  for (uint64_t w = 0; w < n_windows; ++w) {
    std::vector<TokenId> piece(tokens.begin() + static_cast<long>(w * window),
                               tokens.begin() + static_cast<long>((w + 1) * window));
    if (engine.tokenizer().adds_bos()) piece.front() = *engine.tokenizer().bos();
    const auto reference = model.make_state(plain, engine.ledger());
    std::vector<std::unique_ptr<SequenceState>> states;
    for (const StateOptions& kind : kinds) states.push_back(model.make_state(kind, engine.ledger()));
    for (size_t begin = 0; begin < window; begin += kStepTokens) {
      const std::span<const TokenId> step(piece.data() + begin, std::min(kStepTokens, window - begin));
      // What is scored counts as generated: that is what answers will be made with.
      const TokenRole role = begin >= options.first_scored ? TokenRole::kGenerated : TokenRole::kGiven;
      const std::vector<float> want = logits_of(engine, *reference, step, role);
      for (size_t i = 0; i < states.size(); ++i) {
        const std::vector<float> got = logits_of(engine, *states[i], step, role);
        for (size_t t = 0; t < step.size(); ++t) {
          const size_t next = begin + t + 1;
          if (next <= options.first_scored || next >= window) continue;
          const std::span<const float> p(want.data() + t * n_vocab, n_vocab), q(got.data() + t * n_vocab, n_vocab);
          results[i].perplexity += negative_log_likelihood(q, piece[next]);
          results[i].divergence += kl_divergence(p, q);
          results[i].same_choice += best_of(p) == best_of(q) ? 1 : 0;
          ++results[i].n_scored;
          if (i == 0) plain_nll += negative_log_likelihood(p, piece[next]);
        }
      }
    }
    for (size_t i = 0; i < states.size(); ++i) results[i].fetches += states[i]->fetches();
    progress(w + 1, n_windows);
  }
  for (KvQuality& r : results) {
    const double n = static_cast<double>(r.n_scored);
    r.perplexity = std::exp(r.perplexity / n);
    r.plain_perplexity = std::exp(plain_nll / n);
    r.divergence /= n;
    r.same_choice /= n;
  }
  return results;
}

}  // namespace mneme
