#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace mneme {

/// What a measurement found for a claim.
struct ClaimMeasurement {
  double value = 0;
  std::string how;     ///< One line: model, shape, settings.
};

/// A claim of a published system that is built here: what the paper says and how it is measured.
struct Claim {
  std::string system;  ///< Short name, e.g. "sarathi".
  std::string source;  ///< "arXiv 2308.16369".
  std::string text;    ///< What is claimed, in one line.
  std::string unit;
  std::string paper;   ///< The paper's number, as it states it.
  double target = 0;   ///< The bound that holds here,
  bool at_most = false;  ///< measured <= target when true, >= target otherwise.
  std::function<ClaimMeasurement()> measure;
};

struct ClaimResult {
  const Claim* claim;
  ClaimMeasurement measured;
  bool holds = false;
  std::string error;   ///< Why it could not be measured; then it does not hold.
};

/// All claims, in order of systems.
std::span<const Claim> all_claims();

/// Measures the claims of one system, or all. `started` is called before each. Throws Error(kNotFound) that lists the
/// systems for an unknown name.
std::vector<ClaimResult> measure_claims(std::span<const Claim> claims, const std::optional<std::string>& system,
                                        const std::function<void(const Claim&)>& started);

Json to_json(const ClaimResult& result);

}  // namespace mneme
