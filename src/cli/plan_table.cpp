#include "cli/plan_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_size.h"
#include "kernels/memory_bandwidth.h"

namespace mneme::cli {

double measured_read_rate(const MemoryPlan& plan) {
  const uint64_t free = plan.limit > plan.total() ? plan.limit - plan.total() : 0;
  return kernels::measure_read_bandwidth(std::clamp<uint64_t>(free, uint64_t{1} << 20, uint64_t{256} << 20), 3).median;
}

std::string plan_table(const MemoryPlan& plan, double bytes_per_second) {
  std::string out = fmt::format("{:<12} {:>10} {:>6}  {}\n", "memory", "bytes", "share", "for");
  const double total = static_cast<double>(plan.total());
  for (const MemoryPlan::Row& row : plan.rows) {
    out += fmt::format("{:<12} {:>10} {:>5.1f}%  {}\n", tag_name(row.tag), format_byte_size(row.bytes),
                       100 * static_cast<double>(row.bytes) / total, row.what);
  }
  const uint64_t free = plan.limit > plan.total() ? plan.limit - plan.total() : 0;
  out += fmt::format("{:<12} {:>10} {:>6}  of a limit of {}; {} stay free\n", "total", format_byte_size(plan.total()), "",
                     format_byte_size(plan.limit), format_byte_size(free));
  if (plan.kv_disk_bytes > 0) {
    out += fmt::format("{:<12} {:>10} {:>6}  files of keys and values, {} x {} tokens\n", "disk",
                       format_byte_size(plan.kv_disk_bytes), "", plan.n_sequences, plan.context);
  }
  if (plan.session_bytes > 0) {
    out += fmt::format("{:<12} {:>10} {:>6}  at most for the session, while its file is written anew\n", "disk",
                       format_byte_size(plan.session_bytes), "");
  }
  out += fmt::format("speed        at most {:.1f} tokens/s with an empty context, {:.1f} with a full one (reading {}/s)\n",
                     plan.decode_rate(bytes_per_second), plan.decode_rate_full(bytes_per_second),
                     format_byte_size(static_cast<uint64_t>(bytes_per_second)));
  return out;
}

std::string stack_line(const BlockStack& stack) {
  const BlockStack::Status status = stack.status();
  std::string out = fmt::format("weights: {} of {} blocks, {:.2f} bits a weight, {}", status.loaded, stack.n_blocks(),
                                stack.bits_per_weight(status.loaded), format_byte_size(status.bytes));
  if (status.usable < stack.n_blocks()) out += fmt::format("; block {} is damaged", status.usable);
  if (status.n_grown + status.n_shrunk == 0) return out;
  return out + fmt::format("; grown {} and shrunk {} times, {} read", status.n_grown, status.n_shrunk, format_byte_size(status.bytes_read));
}

Json stack_json(const BlockStack& stack) {
  const BlockStack::Status status = stack.status();
  return {{"blocks", status.loaded},
          {"of", stack.n_blocks()},
          {"usable", status.usable},
          {"bytes", status.bytes},
          {"bits_per_weight", stack.bits_per_weight(status.loaded)},
          {"grown", status.n_grown},
          {"shrunk", status.n_shrunk},
          {"bytes_read", status.bytes_read}};
}

Json plan_json(const MemoryPlan& plan, double bytes_per_second) {
  Json rows = Json::array();
  for (const MemoryPlan::Row& row : plan.rows) {
    rows.push_back({{"tag", tag_name(row.tag)}, {"for", row.what}, {"bytes", row.bytes}});
  }
  return {{"rows", rows},
          {"total_bytes", plan.total()},
          {"limit_bytes", plan.limit},
          {"context", plan.context},
          {"sequences", plan.n_sequences},
          {"batch", plan.batch},
          {"kv_disk_bytes", plan.kv_disk_bytes},
          {"session_bytes", plan.session_bytes},
          {"stack_blocks", plan.stack_blocks},
          {"stack_bytes", plan.stack_bytes},
          {"weight_bytes_per_token", plan.weight_bytes_per_token},
          {"read_bytes_per_second", bytes_per_second},
          {"predicted_tokens_per_second",
           {{"empty_context", plan.decode_rate(bytes_per_second)},
            {"full_context", plan.decode_rate_full(bytes_per_second)}}}};
}

}  // namespace mneme::cli
