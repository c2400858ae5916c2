#include "engine/grammar/json_schema_limits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_pointer.h"

namespace mneme {
namespace {

constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();
constexpr int64_t kHighest = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxPlainInteger = 9'999'999'999'999'999;

enum class Side { kLower, kUpper };

[[noreturn]] void refuse_beyond_64_bits(const Json& found, const std::string& at) {
  fail(ErrorCode::kUnsupported, "[json schema] expected a limit that a 64-bit integer holds, found {}, in {}", found.dump(), at);
}

/// The limit as the last integer inside it, cut to 64 bits where that excludes nothing.
std::optional<int64_t> last_inside(const Json& schema, const char* keyword, bool exclusive, Side side, const std::string& where) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return std::nullopt;
  const std::string at = json_path(where, keyword);
  if (!found->is_number()) {
    fail(ErrorCode::kInvalidArgument, "[json schema] expected a number, found {}, in {}", found->type_name(), at);
  }
  const bool lower = side == Side::kLower;
  int64_t value = 0;
  bool whole = true;
  if (found->is_number_unsigned()) {
    const auto given = found->get<uint64_t>();
    if (given > static_cast<uint64_t>(kHighest)) {
      if (lower) refuse_beyond_64_bits(*found, at);
      return kHighest;
    }
    value = static_cast<int64_t>(given);
  } else if (found->is_number_integer()) {
    value = found->get<int64_t>();
  } else {
    constexpr double kTwoTo63 = 9223372036854775808.0;
    const auto given = found->get<double>();
    const double rounded = lower ? std::ceil(given) : std::floor(given);
    if (rounded >= kTwoTo63 || rounded < -kTwoTo63) {
      if ((rounded > 0) == lower) refuse_beyond_64_bits(*found, at);
      return rounded > 0 ? kHighest : kLowest;
    }
    value = static_cast<int64_t>(rounded);
    whole = rounded == given;
  }
  if (!exclusive || !whole) return value;
  if (value == (lower ? kHighest : kLowest)) refuse_beyond_64_bits(*found, at);
  return lower ? value + 1 : value - 1;
}

}  // namespace

std::optional<uint32_t> schema_count(const Json& schema, const char* keyword, const std::string& where) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return std::nullopt;
  const std::string at = json_path(where, keyword);
  const double value = found->is_number() ? found->get<double>() : -1;
  if (value < 0 || value != std::floor(value)) {
    fail(ErrorCode::kInvalidArgument, "[json schema] expected a whole number of 0 or more, found {}, in {}",
         found->is_number() ? found->dump() : found->type_name(), at);
  }
  if (value > GbnfLimits::kRepetition) {
    fail(ErrorCode::kUnsupported, "[json schema] expected at most {}, found {}, in {}", GbnfLimits::kRepetition, found->dump(),
         at);
  }
  return static_cast<uint32_t>(value);
}

std::optional<IntegerLimits> schema_integer_limits(const Json& schema, const std::string& where) {
  std::optional<int64_t> low = last_inside(schema, "minimum", false, Side::kLower, where);
  if (const auto above = last_inside(schema, "exclusiveMinimum", true, Side::kLower, where)) {
    low = low ? std::max(*low, *above) : *above;
  }
  std::optional<int64_t> high = last_inside(schema, "maximum", false, Side::kUpper, where);
  if (const auto below = last_inside(schema, "exclusiveMaximum", true, Side::kUpper, where)) {
    high = high ? std::min(*high, *below) : *below;
  }
  if (!low && !high) return std::nullopt;
  if (!low) low = *high < -kMaxPlainInteger ? kLowest : -kMaxPlainInteger;
  if (!high) high = *low > kMaxPlainInteger ? kHighest : kMaxPlainInteger;
  if (*low > *high) {
    fail(ErrorCode::kUnsupported, "[json schema] expected limits with an integer between them, found {} to {}, in {}", *low, *high,
         where);
  }
  return IntegerLimits{*low, *high};
}

}  // namespace mneme
