#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace mneme {

/// A JSON schema as a grammar in GBNF (gbnf.h) with the start symbol `root`: every text of the grammar is a JSON value that
/// fits the schema.
///
/// Supported: type (also a list), properties, required, additionalProperties, items (schema, or list for tuples),
/// prefixItems, minItems, maxItems, enum, const, anyOf, oneOf, allOf, $ref to `#...`, minLength, maxLength, pattern (see
/// json_pattern.h), format (date, time, date-time, uuid), and for integers minimum, maximum, exclusiveMinimum and
/// exclusiveMaximum. Keywords that only describe are passed over; every other one is an error that names its path, so no
/// part of a schema is dropped silently.
///
/// The grammar may say less than the schema allows, never more:
///  - properties come in the order of the schema, optional ones may be left out; others appear only when
///    additionalProperties is given and not false, after the declared ones;
///  - an integer without a limit has at most 16 digits, a number is as in json_rules.h;
///  - a tuple (prefixItems without items) has exactly its items.
/// One thing it cannot promise: that only one alternative of oneOf fits.
///
/// Throws Error(kUnsupported) or Error(kInvalidArgument) with the path of the place, as in "#/properties/name/format".
std::string json_schema_gbnf(const Json& schema);

}  // namespace mneme
