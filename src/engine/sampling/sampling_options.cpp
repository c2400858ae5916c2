#include "engine/sampling/sampling_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"

namespace mneme {
namespace {

struct Name {
  SamplerKind kind;
  std::string_view name;
};

constexpr std::array kNames = {
    Name{SamplerKind::kPenalties, "penalties"},     Name{SamplerKind::kDry, "dry"},
    Name{SamplerKind::kTopNSigma, "top_n_sigma"},   Name{SamplerKind::kTopK, "top_k"},
    Name{SamplerKind::kTypical, "typ_p"},           Name{SamplerKind::kTopP, "top_p"},
    Name{SamplerKind::kMinP, "min_p"},              Name{SamplerKind::kXtc, "xtc"},
    Name{SamplerKind::kTemperature, "temperature"}, Name{SamplerKind::kInfill, "infill"},
};

constexpr size_t kMaxBreakerBytes = 4096;

/// Collects what is wrong, so that one message names all of it.
class Problems {
 public:
  template <typename Value>
  void expect(bool ok, std::string_view name, const Value& value, std::string_view accepted) {
    if (!ok) list_.push_back(fmt::format("{} is {}, expected {}", name, value, accepted));
  }
  void add(std::string problem) { list_.push_back(std::move(problem)); }
  void raise() const {
    if (!list_.empty()) fail(ErrorCode::kInvalidArgument, "[sampling options] {}", fmt::join(list_, "; "));
  }

 private:
  std::vector<std::string> list_;
};

bool in_unit_interval(float x) { return x >= 0 && x <= 1; }

}  // namespace

std::string_view sampler_name(SamplerKind kind) {
  return std::find_if(kNames.begin(), kNames.end(), [&](const Name& n) { return n.kind == kind; })->name;
}

SamplerKind parse_sampler_name(std::string_view name) {
  const auto found = std::find_if(kNames.begin(), kNames.end(), [&](const Name& n) { return n.name == name; });
  if (found != kNames.end()) return found->kind;
  std::vector<std::string_view> names;
  for (const Name& n : kNames) names.push_back(n.name);
  fail(ErrorCode::kInvalidArgument, "[sampling options] expected a sampler of {}, found '{}'", fmt::join(names, ", "), name);
}

void validate(const SamplingOptions& o, size_t n_vocab) {
  Problems problems;
  problems.expect(std::isfinite(o.temperature), "temperature", o.temperature, "a number");
  problems.expect(std::isfinite(o.dynatemp_range) && o.dynatemp_range >= 0, "dynatemp_range", o.dynatemp_range, "0 or more");
  problems.expect(std::isfinite(o.dynatemp_exponent) && o.dynatemp_exponent >= 0, "dynatemp_exponent", o.dynatemp_exponent,
                  "0 or more");
  problems.expect(in_unit_interval(o.top_p), "top_p", o.top_p, "0 to 1");
  problems.expect(in_unit_interval(o.min_p), "min_p", o.min_p, "0 to 1");
  problems.expect(in_unit_interval(o.typical_p), "typical_p", o.typical_p, "0 to 1");
  problems.expect(std::isfinite(o.top_n_sigma), "top_n_sigma", o.top_n_sigma, "a number");
  problems.expect(in_unit_interval(o.xtc_probability), "xtc_probability", o.xtc_probability, "0 to 1");
  problems.expect(in_unit_interval(o.xtc_threshold), "xtc_threshold", o.xtc_threshold, "0 to 1");
  problems.expect(o.penalty_last_n >= -1, "repeat_last_n", o.penalty_last_n, "-1 or more");
  problems.expect(std::isfinite(o.repeat_penalty) && o.repeat_penalty > 0, "repeat_penalty", o.repeat_penalty,
                  "more than 0");
  problems.expect(std::isfinite(o.frequency_penalty), "frequency_penalty", o.frequency_penalty, "a number");
  problems.expect(std::isfinite(o.presence_penalty), "presence_penalty", o.presence_penalty, "a number");
  problems.expect(std::isfinite(o.dry_multiplier) && o.dry_multiplier >= 0, "dry_multiplier", o.dry_multiplier, "0 or more");
  problems.expect(std::isfinite(o.dry_base) && o.dry_base >= 1, "dry_base", o.dry_base, "1 or more");
  problems.expect(o.dry_allowed_length >= 1, "dry_allowed_length", o.dry_allowed_length, "1 or more");
  problems.expect(o.dry_last_n >= -1, "dry_penalty_last_n", o.dry_last_n, "-1 or more");
  size_t breaker_bytes = 0;
  for (const std::string& breaker : o.dry_sequence_breakers) {
    if (breaker.empty()) problems.add("dry_sequence_breakers holds an empty string");
    breaker_bytes += breaker.size();
  }
  problems.expect(breaker_bytes <= kMaxBreakerBytes, "size of dry_sequence_breakers", breaker_bytes, "at most 4096 bytes");
  problems.expect(o.mirostat >= 0 && o.mirostat <= 2, "mirostat", o.mirostat, "0, 1 or 2");
  problems.expect(std::isfinite(o.mirostat_tau) && o.mirostat_tau >= 0, "mirostat_tau", o.mirostat_tau, "0 or more");
  problems.expect(std::isfinite(o.mirostat_eta) && o.mirostat_eta >= 0, "mirostat_eta", o.mirostat_eta, "0 or more");
  problems.expect(o.adaptive_target <= 1, "adaptive_target", o.adaptive_target, "at most 1 (negative: off)");
  problems.expect(o.adaptive_decay >= 0 && o.adaptive_decay <= 0.99f, "adaptive_decay", o.adaptive_decay, "0 to 0.99");
  for (size_t i = 0; i < o.samplers.size(); ++i) {
    if (std::find(o.samplers.begin(), o.samplers.begin() + static_cast<std::ptrdiff_t>(i), o.samplers[i]) !=
        o.samplers.begin() + static_cast<std::ptrdiff_t>(i)) {
      problems.add(fmt::format("samplers lists {} twice", sampler_name(o.samplers[i])));
    }
  }
  for (const auto& [id, bias] : o.logit_bias) {
    if (id < 0 || static_cast<size_t>(id) >= n_vocab) {
      problems.add(fmt::format("logit_bias names token {}, expected 0 to {}", id, static_cast<int64_t>(n_vocab) - 1));
    }
    if (std::isnan(bias) || (std::isinf(bias) && bias > 0)) {
      problems.add(fmt::format("logit_bias of token {} is {}, expected a number or -inf", id, bias));
    }
  }
  problems.raise();
}

std::optional<uint64_t> seed_from_request(int64_t seed) {
  if (seed == -1 || seed == int64_t{0xFFFFFFFF}) return std::nullopt;
  return static_cast<uint64_t>(seed);
}

}  // namespace mneme
