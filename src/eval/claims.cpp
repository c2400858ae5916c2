#include "eval/claims.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "eval/adapter_claims.h"
#include "eval/ann_claims.h"
#include "eval/bitstack_claims.h"
#include "eval/cskv_claims.h"
#include "eval/foundation_claims.h"
#include "eval/integer_claims.h"
#include "eval/kv_claims.h"
#include "eval/limited_memory_claims.h"
#include "eval/mote_claims.h"
#include "eval/near_data_claims.h"
#include "eval/precision_claims.h"
#include "eval/quant_codegen_claims.h"
#include "eval/trained_rounding_claims.h"
#include "eval/vattention_claims.h"
#include "eval/weight_claims.h"
#include "eval/weight_quality_claims.h"

namespace mneme {

std::span<const Claim> all_claims() {
  static const std::vector<Claim> claims = [] {
    std::vector<Claim> all = foundation_claims();
    for (Claim& claim : vattention_claims()) all.push_back(std::move(claim));
    for (Claim& claim : kv_claims()) all.push_back(std::move(claim));
    for (Claim& claim : cskv_claims()) all.push_back(std::move(claim));
    for (Claim& claim : near_data_claims()) all.push_back(std::move(claim));
    for (Claim& claim : precision_claims()) all.push_back(std::move(claim));
    for (Claim& claim : adapter_claims()) all.push_back(std::move(claim));
    for (Claim& claim : weight_claims()) all.push_back(std::move(claim));
    for (Claim& claim : weight_quality_claims()) all.push_back(std::move(claim));
    for (Claim& claim : trained_rounding_claims()) all.push_back(std::move(claim));
    for (Claim& claim : integer_claims()) all.push_back(std::move(claim));
    for (Claim& claim : limited_memory_claims()) all.push_back(std::move(claim));
    for (Claim& claim : bitstack_claims()) all.push_back(std::move(claim));
    for (Claim& claim : quant_codegen_claims()) all.push_back(std::move(claim));
    for (Claim& claim : mote_claims()) all.push_back(std::move(claim));
    for (Claim& claim : ann_claims()) all.push_back(std::move(claim));
    return all;
  }();
  return claims;
}

std::vector<ClaimResult> measure_claims(std::span<const Claim> claims, const std::optional<std::string>& system,
                                        const std::function<void(const Claim&)>& started) {
  std::set<std::string> known;
  for (const Claim& claim : claims) known.insert(claim.system);
  if (system && !known.contains(*system)) {
    fail(ErrorCode::kNotFound, "[eval claims] expected a system among {}, found '{}'", fmt::join(known, ", "), *system);
  }
  std::vector<ClaimResult> results;
  for (const Claim& claim : claims) {
    if (system && claim.system != *system) continue;
    started(claim);
    ClaimResult result{&claim, {}, false, {}};
    try {
      result.measured = claim.measure();
      result.holds = claim.at_most ? result.measured.value <= claim.target : result.measured.value >= claim.target;
    } catch (const Error& e) {
      result.error = e.what();
    }
    results.push_back(std::move(result));
  }
  return results;
}

Json to_json(const ClaimResult& r) {
  Json out = {{"system", r.claim->system},   {"source", r.claim->source}, {"claim", r.claim->text},
              {"unit", r.claim->unit},       {"paper", r.claim->paper},   {"target", r.claim->target},
              {"at_most", r.claim->at_most}, {"holds", r.holds}};
  if (r.error.empty()) {
    out["measured"] = r.measured.value;
    out["how"] = r.measured.how;
  } else {
    out["error"] = r.error;
  }
  return out;
}

}  // namespace mneme
