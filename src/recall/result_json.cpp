#include "recall/result_json.h"

namespace mneme::recall {

Json to_json(const Candidate& why) {
  Json json = Json::object();
  for (size_t c = 0; c < kChannels; ++c) {
    if (why.rank[c] == 0) continue;
    json[std::string(kChannelNames[c])] = {{"rank", why.rank[c]}, {"score", why.raw[c]}};
  }
  json["age_days"] = why.age_days;
  return json;
}

Json to_json(const VectorSearchCost& cost) {
  Json json = {{"way", cost.way}, {"vectors", cost.vectors}, {"read", cost.read}};
  if (!cost.why_scan.empty()) json["why_scan"] = cost.why_scan;
  if (cost.rounds > 0) {
    json["rounds"] = cost.rounds;
    json["compared"] = cost.compared;
    json["caught_up"] = cost.caught_up;
    json["built"] = cost.built;
  }
  if (cost.lists > 0) {
    json["lists"] = cost.lists;
    json["bytes"] = cost.bytes;
  }
  json["ms"] = cost.ms;
  return json;
}

Json to_json(const SearchResult& result, bool explain) {
  Json hits = Json::array();
  for (const Hit& hit : result.hits) {
    Json json = {{"score", hit.score}, {"tokens", hit.tokens}, {"record", to_json(hit.record)}};
    if (explain) json["why"] = to_json(hit.why);
    hits.push_back(std::move(json));
  }
  Json json = {{"hits", hits},
               {"tokens", result.tokens},
               {"candidates", result.n_candidates},
               {"over_budget", result.n_over_budget},
               {"ms", result.ms}};
  if (!result.vectors.way.empty()) json["vector_search"] = to_json(result.vectors);
  return json;
}

Json to_json(const Erasure& e, const EraseOptions& options) {
  Json json = {{"erased", e.ids},           {"dry_run", options.dry_run},       {"derived", e.derived},
               {"cubes", e.cubes},          {"missing_cubes", e.missing_cubes}, {"files", e.files},
               {"files_left", e.files_left}};
  if (options.verify && !options.dry_run) {
    json["verified"] = {{"files", e.scanned},         {"texts", e.n_texts},
                        {"too_short", e.n_too_short}, {"shared_pieces", e.n_shared},
                        {"rewritten", e.rewritten},   {"server_files_unseen", e.server_files_unseen}};
  }
  return json;
}

}  // namespace mneme::recall
