#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace mneme {

/// Whether a keyword only describes a schema, or holds definitions, and restricts no value.
bool is_annotation(std::string_view keyword);

/// The schema that both `a` and `b` demand (allOf): properties and required are united, limits take the narrower value, types
/// and enumerations intersect. Neither may hold $ref, allOf or a boolean schema at its top; what lies deeper is joined with
/// allOf. Throws Error(kUnsupported) that names `where` for keywords that differ and cannot be joined.
Json merge_schemas(const Json& a, const Json& b, std::string_view where);

}  // namespace mneme
