#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"

namespace mneme {

/// Keywords of a JSON schema that limit a number. Each is checked; errors name `where` and the keyword.

/// The count that a keyword such as maxItems gives: a whole number, at most the largest repetition of a grammar. Nothing
/// when the schema does not have it.
std::optional<uint32_t> schema_count(const Json& schema, const char* keyword, const std::string& where);

struct IntegerLimits {
  int64_t low, high;  ///< low <= high
};

/// What minimum, maximum, exclusiveMinimum and exclusiveMaximum allow an integer to be; nothing when there are none. Limits
/// may be fractions. A side without limit is as wide as the plain integers of JSON grammars (16 digits), or as 64 bits when
/// the other limit lies beyond those.
std::optional<IntegerLimits> schema_integer_limits(const Json& schema, const std::string& where);

}  // namespace mneme
