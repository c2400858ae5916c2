#include "recall/search/search_weights.h"

#include <string>

#include "base/error.h"

namespace mneme::recall {
namespace {

constexpr const char* kContext = "context";

template <typename Weights>
struct NamedWeight {
  const char* name;
  double Weights::* value;
};

constexpr NamedWeight<FusionWeights> kFusion[] = {{"recency", &FusionWeights::recency},
                                                  {"half_life_days", &FusionWeights::half_life_days},
                                                  {"importance", &FusionWeights::importance},
                                                  {"confidence_power", &FusionWeights::confidence_power}};

constexpr NamedWeight<ContextWeights> kContextWeights[] = {
    {"series", &ContextWeights::series}, {"before", &ContextWeights::before},   {"question", &ContextWeights::question},
    {"after", &ContextWeights::after},   {"second", &ContextWeights::second},   {"speaker", &ContextWeights::speaker},
    {"time", &ContextWeights::time}};

template <typename Weights, size_t n>
double* place_of(const std::string& name, Weights& weights, const NamedWeight<Weights> (&named)[n]) {
  for (const NamedWeight<Weights>& each : named) {
    if (name == each.name) return &(weights.*each.value);
  }
  return nullptr;
}

void set(double* place, const std::string& name, const Json& value) {
  if (place == nullptr) fail(ErrorCode::kInvalidArgument, "[read weights] unknown weight '{}'", brief_text(name));
  const double number = value.is_number() ? value.get<double>() : -1;
  if (!(number >= 0 && number <= 1e6)) {
    fail(ErrorCode::kInvalidArgument, "[read weights] {}: expected a number from 0 to 1e6, found {}", brief_text(name),
         brief_text(value.dump()));
  }
  *place = number;
}

}  // namespace

SearchWeights search_weights_from_json(const Json& json) {
  if (!json.is_object()) fail(ErrorCode::kInvalidArgument, "[read weights] expected a JSON object");
  SearchWeights weights;
  for (const auto& [key, value] : json.items()) {
    if (key == kContext) {
      if (!value.is_object()) fail(ErrorCode::kInvalidArgument, "[read weights] context: expected an object");
      for (const auto& [name, part] : value.items()) {
        set(place_of(name, weights.context, kContextWeights), "context." + name, part);
      }
      continue;
    }
    double* place = place_of(key, weights.fusion, kFusion);
    for (size_t c = 0; c < kChannels; ++c) {
      if (key == kChannelNames[c]) place = &weights.fusion.channel[c];
    }
    set(place, key, value);
  }
  return weights;
}

Json to_json(const SearchWeights& weights) {
  Json json;
  for (size_t c = 0; c < kChannels; ++c) json[std::string(kChannelNames[c])] = weights.fusion.channel[c];
  for (const auto& each : kFusion) json[each.name] = weights.fusion.*each.value;
  for (const auto& each : kContextWeights) json[kContext][each.name] = weights.context.*each.value;
  return json;
}

}  // namespace mneme::recall
