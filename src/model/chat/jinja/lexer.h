#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::jinja {

enum class TokenKind {
  kText,           ///< Text between tags, white-space rules applied.
  kBlockBegin,     ///< {%
  kBlockEnd,       ///< %}
  kVariableBegin,  ///< {{
  kVariableEnd,    ///< }}
  kName,
  kString,  ///< Escapes resolved.
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

/// A piece of a template and the line it begins on.
struct Token {
  TokenKind kind;
  std::string text;
  uint32_t line;

  bool is(TokenKind wanted, std::string_view value) const { return kind == wanted && text == value; }
  bool is_operator(std::string_view value) const { return is(TokenKind::kOperator, value); }
  bool is_name(std::string_view value) const { return is(TokenKind::kName, value); }
};

/// Cuts a template into tokens with the settings of chat templates: trim_blocks, lstrip_blocks, and one line end at the
/// very end dropped. Comments vanish, raw blocks become text. The last token is kEnd. Throws Error(kInvalidArgument)
/// with the line for what is no token.
std::vector<Token> tokenize(std::string_view source);

/// Throws Error(kInvalidArgument): "[parse template] message, at line N".
[[noreturn]] void fail_at_line(uint32_t line, std::string_view message);

}  // namespace mneme::jinja
