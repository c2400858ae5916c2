#include <charconv>
#include <initializer_list>

#include "base/error.h"
#include "model/chat/jinja/parser.h"

namespace mneme::jinja {
namespace {

/// Expressions inside each other, and operators after one operand. Bounds the depth of the tree.
constexpr int kMaxNesting = 120;
constexpr int kMaxPostfix = 100;

template <typename Node>
ExprPtr make(uint32_t line, Node node) {
  return std::make_unique<Expr>(Expr{line, std::move(node)});
}

Value integer_value(const Token& token) {
  std::string_view digits = token.text;
  uint32_t base = 10;
  if (digits.size() > 2 && digits[0] == '0' && (digits[1] | 0x20) >= 'a') {
    base = (digits[1] | 0x20) == 'x' ? 16 : (digits[1] | 0x20) == 'o' ? 8 : 2;
    digits.remove_prefix(2);
  }
  Int number = 0;
  for (const char c : digits) {
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    if (__builtin_mul_overflow(number, static_cast<Int>(base), &number) ||
        __builtin_add_overflow(number, static_cast<Int>(digit), &number)) {
      fail_at_line(token.line, "a whole number is out of range");
    }
  }
  return number;
}

Value float_value(const Token& token) {
  double number = 0;
  const auto result = std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
  if (result.ec != std::errc()) fail_at_line(token.line, "a number is out of range");
  return number;
}

}  // namespace

/// Counts the levels of nesting while it lives.
class ExpressionParser::Nesting {
 public:
  explicit Nesting(ExpressionParser& parser) : parser_(parser) {
    if (parser_.depth_ >= kMaxNesting) {
      fail_at_line(parser_.tokens_.peek().line, fmt::format("more than {} expressions inside each other", kMaxNesting));
    }
    ++parser_.depth_;
  }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;
  ~Nesting() { --parser_.depth_; }

 private:
  ExpressionParser& parser_;
};

ExprPtr ExpressionParser::parse_expression() {
  const Nesting nesting(*this);
  ExprPtr value = parse_or();
  // Each conditional holds the one before it, so a chain of them nests.
  for (int length = 0; tokens_.peek().is_name("if"); ++length) {
    if (length >= kMaxPostfix) fail_at_line(tokens_.peek().line, "too many conditionals in a row");
    const uint32_t line = tokens_.next().line;
    Conditional conditional{parse_or(), std::move(value), nullptr};
    if (tokens_.skip_name("else")) conditional.when_false = parse_expression();
    value = make(line, std::move(conditional));
  }
  return value;
}

bool ExpressionParser::at_tuple_end() const {
  const Token& token = tokens_.peek();
  return token.kind == TokenKind::kBlockEnd || token.kind == TokenKind::kVariableEnd || token.is_operator(")") ||
         token.is_name("in") || token.is_name("recursive");
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional) {
  const auto parse_one = [&] { return with_conditional ? parse_expression() : parse_or(); };
  const uint32_t line = tokens_.peek().line;
  ExprPtr first = parse_one();
  if (!tokens_.peek().is_operator(",")) return first;
  ListLiteral tuple{{}, true};
  tuple.items.push_back(std::move(first));
  while (tokens_.skip_operator(",") && !at_tuple_end()) tuple.items.push_back(parse_one());
  return make(line, std::move(tuple));
}

ExprPtr ExpressionParser::parse_or() {
  const uint32_t line = tokens_.peek().line;
  Logical logical{false, {}};
  do {
    logical.operands.push_back(parse_and());
  } while (tokens_.skip_name("or"));
  return logical.operands.size() == 1 ? std::move(logical.operands[0]) : make(line, std::move(logical));
}

ExprPtr ExpressionParser::parse_and() {
  const uint32_t line = tokens_.peek().line;
  Logical logical{true, {}};
  do {
    logical.operands.push_back(parse_not());
  } while (tokens_.skip_name("and"));
  return logical.operands.size() == 1 ? std::move(logical.operands[0]) : make(line, std::move(logical));
}

ExprPtr ExpressionParser::parse_not() {
  if (!tokens_.peek().is_name("not")) return parse_comparison();
  const Nesting nesting(*this);
  const uint32_t line = tokens_.next().line;
  return make(line, Unary{Unary::Op::kNot, parse_not()});
}

ExprPtr ExpressionParser::parse_comparison() {
  constexpr std::pair<std::string_view, CompareOp> kOps[] = {
      {"==", CompareOp::kEqual},        {"!=", CompareOp::kNotEqual}, {"<=", CompareOp::kLessEqual},
      {">=", CompareOp::kGreaterEqual}, {"<", CompareOp::kLess},      {">", CompareOp::kGreater}};
  const uint32_t line = tokens_.peek().line;
  Comparison comparison{parse_sum(), {}};
  while (true) {
    bool found = false;
    if (tokens_.skip_name("in")) {
      comparison.rest.emplace_back(CompareOp::kIn, parse_sum());
      found = true;
    } else if (tokens_.peek().is_name("not") && tokens_.peek_next().is_name("in")) {
      tokens_.next();
      tokens_.next();
      comparison.rest.emplace_back(CompareOp::kNotIn, parse_sum());
      found = true;
    } else {
      for (const auto& [text, op] : kOps) {
        if (!tokens_.skip_operator(text)) continue;
        comparison.rest.emplace_back(op, parse_sum());
        found = true;
        break;
      }
    }
    if (!found) break;
  }
  return comparison.rest.empty() ? std::move(comparison.first) : make(line, std::move(comparison));
}

namespace {

/// Operands joined by operators of one precedence.
template <typename ParseOperand>
ExprPtr parse_chain(TokenStream& tokens, std::initializer_list<std::pair<std::string_view, BinaryOp>> ops,
                    ParseOperand parse_operand) {
  const uint32_t line = tokens.peek().line;
  BinaryChain chain{parse_operand(), {}};
  for (bool found = true; found;) {
    found = false;
    for (const auto& [text, op] : ops) {
      if (!tokens.skip_operator(text)) continue;
      chain.rest.emplace_back(op, parse_operand());
      found = true;
      break;
    }
  }
  return chain.rest.empty() ? std::move(chain.first) : make(line, std::move(chain));
}

}  // namespace

ExprPtr ExpressionParser::parse_sum() {
  return parse_chain(tokens_, {{"+", BinaryOp::kAdd}, {"-", BinaryOp::kSubtract}}, [&] { return parse_concat(); });
}

ExprPtr ExpressionParser::parse_concat() {
  return parse_chain(tokens_, {{"~", BinaryOp::kConcat}}, [&] { return parse_product(); });
}

ExprPtr ExpressionParser::parse_product() {
  return parse_chain(
      tokens_,
      {{"*", BinaryOp::kMultiply}, {"//", BinaryOp::kFloorDivide}, {"/", BinaryOp::kDivide}, {"%", BinaryOp::kModulo}},
      [&] { return parse_power(); });
}

ExprPtr ExpressionParser::parse_power() {
  return parse_chain(tokens_, {{"**", BinaryOp::kPower}}, [&] { return parse_unary(true); });
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  const Nesting nesting(*this);
  const uint32_t line = tokens_.peek().line;
  ExprPtr value;
  if (tokens_.skip_operator("-")) {
    value = make(line, Unary{Unary::Op::kNegate, parse_unary(false)});
  } else if (tokens_.skip_operator("+")) {
    value = make(line, Unary{Unary::Op::kPlus, parse_unary(false)});
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters_and_tests(std::move(value)) : std::move(value);
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = tokens_.peek();
  const uint32_t line = token.line;
  switch (token.kind) {
    case TokenKind::kName:
      return parse_name_or_constant();
    case TokenKind::kInteger:
      return make(line, Literal{integer_value(tokens_.next())});
    case TokenKind::kFloat:
      return make(line, Literal{float_value(tokens_.next())});
    case TokenKind::kString: {
      std::string text;
      while (tokens_.peek().kind == TokenKind::kString) text += tokens_.next().text;
      return make(line, Literal{make_text(std::move(text))});
    }
    default:
      break;
  }
  if (token.is_operator("(")) return parse_parenthesised();
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  tokens_.fail_expected("an expression");
}

ExprPtr ExpressionParser::parse_name_or_constant() {
  const Token token = tokens_.next();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make(token.line, Literal{true});
  if (name == "false" || name == "False") return make(token.line, Literal{false});
  if (name == "none" || name == "None") return make(token.line, Literal{nullptr});
  return make(token.line, Variable{symbols_.intern(name), name});
}

ExprPtr ExpressionParser::parse_parenthesised() {
  const uint32_t line = tokens_.next().line;
  if (tokens_.skip_operator(")")) return make(line, ListLiteral{{}, true});
  ExprPtr value = parse_tuple();
  tokens_.expect_operator(")");
  return value;
}

ExprPtr ExpressionParser::parse_list() {
  const uint32_t line = tokens_.next().line;
  ListLiteral list{{}, false};
  while (!tokens_.skip_operator("]")) {
    if (!list.items.empty()) {
      tokens_.expect_operator(",");
      if (tokens_.skip_operator("]")) break;
    }
    list.items.push_back(parse_expression());
  }
  return make(line, std::move(list));
}

ExprPtr ExpressionParser::parse_dict() {
  const uint32_t line = tokens_.next().line;
  DictLiteral dict;
  while (!tokens_.skip_operator("}")) {
    if (!dict.entries.empty()) {
      tokens_.expect_operator(",");
      if (tokens_.skip_operator("}")) break;
    }
    ExprPtr key = parse_expression();
    tokens_.expect_operator(":");
    dict.entries.emplace_back(std::move(key), parse_expression());
  }
  return make(line, std::move(dict));
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr value) {
  for (int length = 0;; ++length) {
    const Token& token = tokens_.peek();
    const uint32_t line = token.line;
    const bool is_call = token.is_operator("(");
    if (!is_call && !token.is_operator(".") && !token.is_operator("[")) return value;
    if (length >= kMaxPostfix) fail_at_line(line, "too many attributes and calls in a row");
    if (is_call) {
      Arguments arguments = parse_arguments();
      value = make(line, Call{std::move(value), std::move(arguments)});
    } else {
      value = token.is_operator(".") ? parse_attribute(std::move(value)) : parse_subscript(std::move(value));
    }
  }
}

ExprPtr ExpressionParser::parse_attribute(ExprPtr object) {
  const uint32_t line = tokens_.next().line;
  if (tokens_.peek().kind == TokenKind::kInteger) {
    ExprPtr index = make(line, Literal{integer_value(tokens_.next())});
    return make(line, Item{std::move(object), std::move(index)});
  }
  return make(line, Attribute{std::move(object), tokens_.expect_any_name()});
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr object) {
  const uint32_t line = tokens_.next().line;
  const auto at_bound_end = [&] { return tokens_.peek().is_operator(":") || tokens_.peek().is_operator("]"); };
  ExprPtr start = at_bound_end() ? nullptr : parse_tuple();
  if (start != nullptr && tokens_.skip_operator("]")) return make(line, Item{std::move(object), std::move(start)});
  if (!tokens_.skip_operator(":")) tokens_.fail_expected("an index");
  Slice slice{std::move(object), std::move(start), nullptr, nullptr};
  if (!at_bound_end()) slice.stop = parse_expression();
  if (tokens_.skip_operator(":") && !at_bound_end()) slice.step = parse_expression();
  tokens_.expect_operator("]");
  return make(line, std::move(slice));
}

Arguments ExpressionParser::parse_arguments() {
  using Kind = Argument::Kind;
  tokens_.expect_operator("(");
  Arguments arguments;
  while (!tokens_.skip_operator(")")) {
    if (!arguments.empty()) {
      tokens_.expect_operator(",");
      if (tokens_.skip_operator(")")) break;
    }
    Argument argument{Kind::kPositional, {}, nullptr};
    if (tokens_.skip_operator("**")) {
      argument.kind = Kind::kSpreadDict;
    } else if (tokens_.skip_operator("*")) {
      argument.kind = Kind::kSpreadList;
    } else if (tokens_.peek().kind == TokenKind::kName && tokens_.peek_next().is_operator("=")) {
      argument.kind = Kind::kNamed;
      argument.name = tokens_.expect_any_name();
      tokens_.expect_operator("=");
    } else if (!arguments.empty() && arguments.back().kind != Kind::kPositional &&
               arguments.back().kind != Kind::kSpreadList) {
      tokens_.fail_expected("a named argument");
    }
    argument.value = parse_expression();
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

ExprPtr ExpressionParser::parse_filters_and_tests(ExprPtr value) {
  for (int length = 0;; ++length) {
    const Token& token = tokens_.peek();
    const uint32_t line = token.line;
    if (length >= kMaxPostfix) fail_at_line(line, "too many filters in a row");
    if (tokens_.skip_operator("|")) {
      value = make(line, parse_filter(std::move(value)));
    } else if (token.is_name("is")) {
      value = parse_test(std::move(value));
    } else if (token.is_operator("(")) {
      Arguments arguments = parse_arguments();
      value = make(line, Call{std::move(value), std::move(arguments)});
    } else {
      return value;
    }
  }
}

FilterUse ExpressionParser::parse_filter(ExprPtr input) {
  FilterUse use{std::move(input), tokens_.expect_any_name(), nullptr, {}};
  while (tokens_.skip_operator(".")) use.name.append(1, '.').append(tokens_.expect_any_name());
  use.filter = find_filter(use.name);
  if (tokens_.peek().is_operator("(")) use.arguments = parse_arguments();
  return use;
}

std::vector<FilterUse> ExpressionParser::parse_filter_chain() {
  std::vector<FilterUse> filters;
  do {
    filters.push_back(parse_filter(nullptr));
  } while (tokens_.skip_operator("|"));
  return filters;
}

ExprPtr ExpressionParser::parse_test(ExprPtr input) {
  const uint32_t line = tokens_.next().line;
  TestUse use{std::move(input), {}, nullptr, {}, tokens_.skip_name("not")};
  use.name = tokens_.expect_any_name();
  use.test = find_test(use.name);
  const Token& token = tokens_.peek();
  if (token.is_operator("(")) {
    use.arguments = parse_arguments();
    return make(line, std::move(use));
  }
  // `is divisibleby 3`: one operand without parentheses.
  const bool ends_test = token.is_name("else") || token.is_name("or") || token.is_name("and") || token.is_name("is");
  const bool starts_operand = token.kind == TokenKind::kName || token.kind == TokenKind::kString ||
                              token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat ||
                              token.is_operator("[") || token.is_operator("{");
  const bool more_condition =
      token.is_name("if") || token.is_name("in") || token.is_name("not") || token.is_name("recursive");
  if (starts_operand && !ends_test && !more_condition) {
    const Nesting nesting(*this);
    ExprPtr operand = parse_postfix(parse_primary());
    use.arguments.push_back({Argument::Kind::kPositional, {}, std::move(operand)});
  }
  return make(line, std::move(use));
}

}  // namespace mneme::jinja
