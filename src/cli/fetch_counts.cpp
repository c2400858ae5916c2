#include "cli/fetch_counts.h"

#include <fmt/format.h>

#include "base/byte_size.h"

namespace mneme::cli {

std::string fetch_text(const FetchCounts& counts) {
  std::string out = fmt::format("{:.0f} % of the wanted pieces in memory, {} read", 100 * counts.hit_rate(),
                                format_byte_size(counts.bytes));
  if (counts.passed > 0) out += fmt::format(" of which {} took part", format_byte_size(counts.passed));
  if (counts.link > 0) out += fmt::format(", {} to and from workers", format_byte_size(counts.link));
  return out;
}

Json fetch_json(const FetchCounts& counts) {
  return {{"wanted", counts.wanted},
          {"resident", counts.resident},
          {"bytes", counts.bytes},
          {"passed_bytes", counts.passed},
          {"link_bytes", counts.link}};
}

}  // namespace mneme::cli
