#pragma once

#include <string>

#include "base/json.h"
#include "engine/plan.h"

namespace mneme::cli {

/// The plan as a table for a person; `bytes_per_second` is the measured read rate behind the predicted speed.
std::string plan_table(const MemoryPlan& plan, double bytes_per_second);
Json plan_json(const MemoryPlan& plan, double bytes_per_second);

}  // namespace mneme::cli
