#pragma once

#include <string_view>
#include <unordered_map>

#include "model/chat/jinja/ast.h"
#include "model/chat/jinja/lexer.h"

namespace mneme::jinja {

/// Longest template source; the tree takes some hundred times its bytes.
inline constexpr size_t kMaxSourceBytes = size_t{1} << 20;

/// Parses a template. Throws Error(kInvalidArgument) for bad syntax and Error(kUnsupported) for statements outside the
/// subset (include, import, extends, block, ...), both with the line.
Ast parse(std::string_view source);

/// Reads tokens one after another; what expressions and statements share.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek() const { return tokens_[at_]; }
  const Token& peek_next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  void expect_name(std::string_view name);
  std::string expect_any_name();
  void expect(TokenKind kind, std::string_view what);
  [[noreturn]] void fail_expected(std::string_view what) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

/// Numbers names in the order they appear.
class SymbolTable {
 public:
  SymbolTable();
  Symbol intern(const std::string& name);
  std::vector<std::string> take_names() { return std::move(names_); }

 private:
  std::unordered_map<std::string, Symbol> numbers_;
  std::vector<std::string> names_;
};

/// Expressions, by the precedence of Jinja: if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary, postfix.
class ExpressionParser {
 public:
  ExpressionParser(TokenStream& tokens, SymbolTable& symbols) : tokens_(tokens), symbols_(symbols) {}

  ExprPtr parse_expression();
  /// One expression, or several with commas as a tuple. `with_conditional` is off in `for x in ITEMS if ...`.
  ExprPtr parse_tuple(bool with_conditional = true);
  /// `name(arguments) | name ...` of a filter block, the first name without its "|".
  std::vector<FilterUse> parse_filter_chain();
  Arguments parse_arguments();

 private:
  class Nesting;

  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_comparison();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_primary();
  ExprPtr parse_name_or_constant();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_parenthesised();
  ExprPtr parse_postfix(ExprPtr value);
  ExprPtr parse_filters_and_tests(ExprPtr value);
  ExprPtr parse_attribute(ExprPtr object);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_test(ExprPtr input);
  FilterUse parse_filter(ExprPtr input);
  bool at_tuple_end() const;

  TokenStream& tokens_;
  SymbolTable& symbols_;
  int depth_ = 0;
};

}  // namespace mneme::jinja
