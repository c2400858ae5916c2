#pragma once

#include <string>

#include "base/json.h"
#include "engine/plan.h"

namespace mneme::cli {

/// Bytes a second that all threads read, measured in the memory that the plan leaves free (at most 256 MiB), so that the
/// measurement keeps to the limit too.
double measured_read_rate(const MemoryPlan& plan);

/// The plan as a table for a person; `bytes_per_second` is the measured read rate behind the predicted speed.
std::string plan_table(const MemoryPlan& plan, double bytes_per_second);
Json plan_json(const MemoryPlan& plan, double bytes_per_second);

/// "weights: 412 of 672 blocks, 4.31 bits a weight, 5.1 MiB; grown 1 and shrunk 2 times, 9.2 MiB read"
std::string stack_line(const BlockStack& stack);
Json stack_json(const BlockStack& stack);

}  // namespace mneme::cli
