#pragma once

#include <string>
#include <string_view>

namespace mneme {

/// GBNF for the strings that a regular expression matches, as they stand between the quotes of JSON (with its escapes).
///
/// The expression must be anchored (^...$) and may use: characters, '.', classes with ranges, ^ and \d \w \s \D \W \S,
/// groups ( ) and (?: ), alternatives inside groups, * + ? {m} {m,} {m,n} (also lazy), escapes \n \r \t \f \v \xHH \uHHHH and
/// escaped punctuation, as in ECMAScript. Back references, look-around, word borders and properties are refused.
///
/// Throws Error(kUnsupported) or Error(kInvalidArgument); `where` (a path in a schema) is named in the message.
std::string json_pattern_gbnf(std::string_view pattern, std::string_view where);

}  // namespace mneme
