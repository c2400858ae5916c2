#include "recall/search/ranking.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mneme::recall {
namespace {

/// Names and places of the weights that are not channels.
struct NamedWeight {
  const char* name;
  double FusionWeights::*value;
};
constexpr NamedWeight kNamed[] = {{"recency", &FusionWeights::recency},
                                  {"half_life_days", &FusionWeights::half_life_days},
                                  {"importance", &FusionWeights::importance},
                                  {"confidence_power", &FusionWeights::confidence_power}};

}  // namespace

std::vector<double> bm25(std::span<const TermMatch> matches, std::span<const int64_t> lengths, int64_t n_records,
                         double mean_length) {
  constexpr double k1 = 1.2, b = 0.75;
  std::vector<double> scores(matches.size());
  if (matches.empty()) return scores;
  const size_t n_terms = matches.front().counts.size();
  std::vector<double> idf(n_terms);
  for (size_t t = 0; t < n_terms; ++t) {
    double n = 0;
    for (const TermMatch& match : matches) n += match.counts[t] > 0;
    idf[t] = std::log(1 + (std::max(static_cast<double>(n_records), n) - n + 0.5) / (n + 0.5));
  }
  for (size_t i = 0; i < matches.size(); ++i) {
    const double norm = k1 * (1 - b + b * static_cast<double>(lengths[i]) / std::max(mean_length, 1.0));
    for (size_t t = 0; t < n_terms; ++t) {
      const double c = matches[i].counts[t];
      scores[i] += idf[t] * c * (k1 + 1) / (c + norm);
    }
  }
  return scores;
}

FusionWeights fusion_weights_from_json(const Json& json) {
  if (!json.is_object()) fail(ErrorCode::kInvalidArgument, "[read weights] expected a JSON object");
  FusionWeights weights;
  for (const auto& [key, value] : json.items()) {
    double* place = nullptr;
    for (size_t c = 0; c < kChannels; ++c) {
      if (key == kChannelNames[c]) place = &weights.channel[c];
    }
    for (const NamedWeight& named : kNamed) {
      if (key == named.name) place = &(weights.*named.value);
    }
    if (place == nullptr) fail(ErrorCode::kInvalidArgument, "[read weights] unknown weight '{}'", brief_text(key));
    const double number = value.is_number() ? value.get<double>() : -1;
    if (!(number >= 0 && number <= 1e6)) {
      fail(ErrorCode::kInvalidArgument, "[read weights] {}: expected a number from 0 to 1e6, found {}", brief_text(key),
           brief_text(value.dump()));
    }
    *place = number;
  }
  return weights;
}

Json to_json(const FusionWeights& weights) {
  Json json;
  for (size_t c = 0; c < kChannels; ++c) json[std::string(kChannelNames[c])] = weights.channel[c];
  for (const NamedWeight& named : kNamed) json[named.name] = weights.*named.value;
  return json;
}

double fused_score(const Candidate& c, const FusionWeights& w) {
  double score = 0;
  for (size_t i = 0; i < kChannels; ++i) score += w.channel[i] * c.share[i];
  const double half_life = std::max(w.half_life_days, 1e-6);
  score *= 1 + w.recency * std::exp2(-std::max(c.age_days, 0.0) / half_life);
  score *= std::max(0.0, 1 + w.importance * (c.importance - 0.5));
  return score * std::pow(c.confidence, w.confidence_power);
}

std::vector<size_t> diverse_order(std::span<const double> relevance, double lambda, size_t n,
                                  FunctionRef<double(size_t, size_t)> similarity) {
  std::vector<size_t> order;
  if (relevance.empty()) return order;
  const double top = std::max(*std::max_element(relevance.begin(), relevance.end()), 1e-300);
  std::vector<double> closest(relevance.size());  // greatest similarity to the chosen ones
  std::vector<bool> chosen(relevance.size());
  while (order.size() < std::min(n, relevance.size())) {
    size_t best = relevance.size();
    double best_value = 0;
    for (size_t i = 0; i < relevance.size(); ++i) {
      if (chosen[i]) continue;
      const double value = lambda * relevance[i] / top - (1 - lambda) * closest[i];
      if (best == relevance.size() || value > best_value) {
        best = i;
        best_value = value;
      }
    }
    chosen[best] = true;
    order.push_back(best);
    for (size_t i = 0; i < relevance.size(); ++i) {
      if (!chosen[i]) closest[i] = std::max(closest[i], similarity(i, best));
    }
  }
  return order;
}

}  // namespace mneme::recall
