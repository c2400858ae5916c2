#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "base/error.h"
#include "engine/sampling/infill.h"
#include "engine/sampling/mirostat.h"
#include "engine/sampling/temperature.h"
#include "engine/sampling/truncation.h"

namespace mneme {
namespace {

constexpr int kStateVersion = 1;

uint64_t system_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

SamplingOptions checked(SamplingOptions options, const VocabularyView& vocabulary) {
  validate(options, vocabulary.size());
  if (options.ignore_end_of_generation) {
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const auto id = static_cast<TokenId>(i);
      if (vocabulary.is_end_of_generation(id)) options.logit_bias.emplace_back(id, kBanned);
    }
  }
  return options;
}

size_t history_window(const SamplingOptions& o) {
  if (o.penalty_last_n < 0 || o.dry_last_n < 0) return TokenHistory::kUnlimited;
  return static_cast<size_t>(std::max(o.penalty_last_n, o.dry_last_n));
}

/// Field of a saved state, of the type asked for.
template <typename Value>
Value field(const Json& state, const char* name) {
  try {
    return state.at(name).get<Value>();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::kCorruptData, "[load sampler state] expected a value of the right type, found none, in field '{}'", name);
  }
}

}  // namespace

Sampler::Sampler(SamplingOptions options, const VocabularyView& vocabulary)
    : options_(checked(std::move(options), vocabulary)),
      vocabulary_(vocabulary),
      bias_(options_.logit_bias),
      seed_(options_.seed ? *options_.seed : system_seed()),
      random_(seed_),
      history_(history_window(options_)),
      penalties_(options_.repeat_penalty, options_.frequency_penalty, options_.presence_penalty),
      dry_(options_.dry_multiplier, options_.dry_base, static_cast<size_t>(options_.dry_allowed_length),
           options_.dry_sequence_breakers),
      adaptive_(options_.adaptive_target, options_.adaptive_decay),
      mirostat_mu_(2 * options_.mirostat_tau) {}

TokenId Sampler::sample(std::span<const float> logits, TokenConstraint* constraint) {
  if (logits.size() != vocabulary_.size()) {
    fail(ErrorCode::kInvalidArgument, "[sample] expected {} logits (the vocabulary), found {}", vocabulary_.size(),
         logits.size());
  }
  if (constraint == nullptr) return draw(logits, nullptr);
  if (options_.constraint_mode == ConstraintMode::kExact) return draw(logits, &constraint->mask());
  const TokenId winner = draw(logits, nullptr);
  return constraint->allows(winner) ? winner : draw(logits, &constraint->mask());
}

TokenId Sampler::draw(std::span<const float> logits, const TokenMask* mask) {
  candidates_.reset(logits, mask);
  apply_chain();
  if (adaptive_.active() && options_.mirostat == 0) {
    std::vector<float> before;
    for (const Candidate& c : candidates_.normalize()) before.push_back(c.p);
    adaptive_.apply(candidates_);
    candidates_.normalize();
    const size_t picked = pick();
    sampled_ = candidates_.items()[picked].id;
    sampled_p_ = before[picked];
  } else if (candidates_.is_dense()) {
    const dense::Draw drawn = dense::draw(candidates_.logits(), candidates_.max_logit(), random_.next_double());
    sampled_ = drawn.id;
    sampled_p_ = drawn.p;
  } else {
    candidates_.normalize();
    const Candidate& winner = candidates_.items()[pick()];
    sampled_ = winner.id;
    sampled_p_ = winner.p;
  }
  return sampled_;
}

std::span<const Candidate> Sampler::last_candidates() { return candidates_.normalize(); }

void Sampler::apply_chain() {
  bias_.apply(candidates_);
  if (options_.mirostat != 0) {
    apply_temperature(candidates_, options_.temperature);
    if (options_.temperature <= 0) return;
    if (options_.mirostat == 1) {
      apply_mirostat_v1(candidates_, mirostat_mu_, vocabulary_.size());
    } else {
      apply_mirostat_v2(candidates_, mirostat_mu_);
    }
    return;
  }
  const bool plain = greedy_is_plain();
  for (const SamplerKind kind : options_.samplers) {
    if (!plain || kind == SamplerKind::kPenalties || kind == SamplerKind::kDry) apply_step(kind);
  }
  if (options_.temperature <= 0) candidates_.keep_top(1);
}

/// With temperature 0 the truncating steps need not run unless one of them can drop the best token.
bool Sampler::greedy_is_plain() const {
  const auto listed = [&](SamplerKind kind) {
    return std::find(options_.samplers.begin(), options_.samplers.end(), kind) != options_.samplers.end();
  };
  return options_.temperature <= 0 && !(listed(SamplerKind::kTypical) && options_.typical_p < 1) &&
         !(listed(SamplerKind::kXtc) && options_.xtc_probability > 0) && !listed(SamplerKind::kInfill);
}

void Sampler::apply_step(SamplerKind kind) {
  const SamplingOptions& o = options_;
  switch (kind) {
    case SamplerKind::kPenalties: return penalties_.apply(candidates_);
    case SamplerKind::kDry:
      return dry_.apply(candidates_, history_.last(window(o.dry_last_n)),
                        [this](TokenId id) { return vocabulary_.piece(id); });
    case SamplerKind::kTopNSigma:
      if (o.top_n_sigma >= 0) apply_top_n_sigma(candidates_, o.top_n_sigma);
      return;
    case SamplerKind::kTopK:
      if (o.top_k > 0) apply_top_k(candidates_, static_cast<size_t>(o.top_k), o.min_keep);
      return;
    case SamplerKind::kTypical:
      if (o.typical_p < 1) apply_typical(candidates_, o.typical_p, o.min_keep);
      return;
    case SamplerKind::kTopP:
      if (o.top_p < 1) apply_top_p(candidates_, o.top_p, o.min_keep);
      return;
    case SamplerKind::kMinP:
      if (o.min_p > 0) apply_min_p(candidates_, o.min_p, o.min_keep);
      return;
    case SamplerKind::kXtc:
      if (o.xtc_probability > 0 && o.xtc_threshold <= 0.5f) {
        apply_xtc(candidates_, o.xtc_probability, o.xtc_threshold, o.min_keep, random_);
      }
      return;
    case SamplerKind::kTemperature:
      if (o.temperature > 0 && o.dynatemp_range > 0) {
        apply_dynamic_temperature(candidates_, o.temperature, o.dynatemp_range, o.dynatemp_exponent);
      } else {
        apply_temperature(candidates_, o.temperature);
      }
      return;
    case SamplerKind::kInfill: return apply_infill(candidates_, vocabulary_);
  }
}

/// Index of the item that one uniform number selects by the cumulated probabilities.
size_t Sampler::pick() {
  const std::span<const Candidate> items = candidates_.items();
  if (items.size() == 1) return 0;
  double total = 0;
  for (const Candidate& c : items) total += c.p;
  const double target = random_.next_double() * total;
  double sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].p == 0) continue;
    last = i;
    sum += items[i].p;
    if (sum > target) break;
  }
  return last;
}

size_t Sampler::window(int last_n) const { return last_n < 0 ? TokenHistory::kUnlimited : static_cast<size_t>(last_n); }

void Sampler::accept(TokenId token) {
  if (token < 0 || static_cast<size_t>(token) >= vocabulary_.size()) {
    fail(ErrorCode::kInvalidArgument, "[accept token] expected an id below {}, found {}", vocabulary_.size(), token);
  }
  if (token == sampled_) {
    if (options_.mirostat != 0) {
      mirostat_mu_ = mirostat_next_mu(mirostat_mu_, sampled_p_, options_.mirostat_tau, options_.mirostat_eta);
    } else if (adaptive_.active()) {
      adaptive_.accept(sampled_p_);
    }
  }
  sampled_ = -1;
  const size_t n = window(options_.penalty_last_n);
  if (n > 0) {
    const std::span<const TokenId> inside = history_.last(n);
    if (inside.size() == n) penalties_.leave(inside.front());
    penalties_.enter(token);
  }
  if (dry_.active()) dry_.accept(vocabulary_.piece(token));
  history_.push(token);
}

Json Sampler::save_state() const {
  const std::span<const TokenId> history = history_.last(TokenHistory::kUnlimited);
  return {{"version", kStateVersion},
          {"seed", seed_},
          {"position", random_.position()},
          {"history", std::vector<TokenId>(history.begin(), history.end())},
          {"dry_since_breaker", dry_.n_since_breaker()},
          {"dry_search", dry_.search()},
          {"mirostat_mu", mirostat_mu_},
          {"adaptive_sum", adaptive_.weighted_sum()},
          {"adaptive_weight", adaptive_.total_weight()}};
}

void Sampler::load_state(const Json& state) {
  if (const int version = field<int>(state, "version"); version != kStateVersion) {
    fail(ErrorCode::kCorruptData, "[load sampler state] expected version {}, found {}", kStateVersion, version);
  }
  const auto history = field<std::vector<TokenId>>(state, "history");
  for (const TokenId id : history) {
    if (id < 0 || static_cast<size_t>(id) >= vocabulary_.size()) {
      fail(ErrorCode::kCorruptData, "[load sampler state] expected ids below {}, found {}, in field 'history'",
           vocabulary_.size(), id);
    }
  }
  const auto mu = field<float>(state, "mirostat_mu");
  const auto sum = field<float>(state, "adaptive_sum"), weight = field<float>(state, "adaptive_weight");
  if (!std::isfinite(mu) || !std::isfinite(sum) || !(weight > 0) || !std::isfinite(weight)) {
    fail(ErrorCode::kCorruptData, "[load sampler state] expected finite numbers, found others, in the feedback fields");
  }
  const auto seed = field<uint64_t>(state, "seed"), position = field<uint64_t>(state, "position");
  const auto since = field<size_t>(state, "dry_since_breaker");
  const auto search = field<ByteMatcher::State>(state, "dry_search");
  if (!dry_.restore(since, search)) {
    fail(ErrorCode::kCorruptData, "[load sampler state] the DRY breakers differ from those of the saved state");
  }

  seed_ = seed;
  random_ = PhiloxStream(seed, 0, position);
  mirostat_mu_ = mu;
  adaptive_.restore(sum, weight);
  sampled_ = -1;
  history_ = TokenHistory(history_window(options_));
  penalties_ = Penalties(options_.repeat_penalty, options_.frequency_penalty, options_.presence_penalty);
  for (const TokenId id : history) history_.push(id);
  for (const TokenId id : history_.last(window(options_.penalty_last_n))) penalties_.enter(id);
}

}  // namespace mneme
