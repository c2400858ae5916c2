#include "model/chat/jinja/parser.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace mneme::jinja {
namespace {

constexpr int kMaxBlockNesting = 60;

/// Names of statements that end or divide a block, as "elif" does.
using Ends = std::initializer_list<std::string_view>;

class StatementParser {
 public:
  explicit StatementParser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_, symbols_) {}

  Ast run() {
    Ast ast;
    ast.body = parse_block({});
    ast.symbol_names = symbols_.take_names();
    return ast;
  }

 private:
  /// Statements up to a tag named in `ends`, whose name is the next token then; without ends, up to the end.
  Block parse_block(Ends ends) {
    if (depth_ >= kMaxBlockNesting) {
      fail_at_line(tokens_.peek().line, fmt::format("more than {} blocks inside each other", kMaxBlockNesting));
    }
    ++depth_;
    Block block;
    while (true) {
      const Token& token = tokens_.peek();
      const uint32_t line = token.line;
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() > 0) fail_at_line(line, fmt::format("a block has no '{}'", *(ends.end() - 1)));
        break;
      }
      if (token.kind == TokenKind::kText) {
        block.push_back({line, TextOutput{make_text(tokens_.next().text)}});
      } else if (token.kind == TokenKind::kVariableBegin) {
        tokens_.next();
        block.push_back({line, Output{expressions_.parse_tuple()}});
        tokens_.expect(TokenKind::kVariableEnd, "'}}'");
      } else {
        tokens_.expect(TokenKind::kBlockBegin, "a tag");
        const std::string& name = tokens_.peek().text;
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) break;
        block.push_back({line, parse_statement(line)});
      }
    }
    --depth_;
    return block;
  }

  decltype(Statement::node) parse_statement(uint32_t line) {
    const std::string name = tokens_.expect_any_name();
    if (name == "if") return parse_if();
    if (name == "for") return parse_for();
    if (name == "set") return parse_set();
    if (name == "macro") return parse_macro();
    if (name == "call") return parse_call();
    if (name == "filter") return parse_filter();
    if (name == "with") return parse_with();
    if (name == "generation") return parse_generation();
    if (name == "do") return end_tag(Do{expressions_.parse_tuple()});
    if (name == "break" || name == "continue") {
      if (loop_depth_ == 0) fail_at_line(line, fmt::format("'{}' outside a loop", name));
      if (name == "break") return end_tag(Break{});
      return end_tag(Continue{});
    }
    constexpr std::array<std::string_view, 8> kKnown = {"include", "import",     "from",  "extends",
                                                        "block",   "autoescape", "trans", "debug"};
    if (std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end()) {
      fail(ErrorCode::kUnsupported, "[parse template] the statement '{}' is not supported, at line {}", name, line);
    }
    fail_at_line(line, fmt::format("unknown statement '{}'", name));
  }

  template <typename Node>
  Node end_tag(Node node) {
    tokens_.expect(TokenKind::kBlockEnd, "'%}'");
    return node;
  }
  void end_tag() { tokens_.expect(TokenKind::kBlockEnd, "'%}'"); }

  /// Body up to `{% end %}`, which is read too.
  Block parse_body(std::string_view end) {
    end_tag();
    Block body = parse_block({end});
    tokens_.expect_name(end);
    end_tag();
    return body;
  }

  If parse_if() {
    If statement;
    do {
      ExprPtr condition = expressions_.parse_tuple();
      end_tag();
      statement.branches.emplace_back(std::move(condition), parse_block({"elif", "else", "endif"}));
    } while (tokens_.skip_name("elif"));
    if (tokens_.skip_name("else")) {
      statement.otherwise = parse_body("endif");
    } else {
      tokens_.expect_name("endif");
      end_tag();
    }
    return statement;
  }

  For parse_for() {
    For loop;
    loop.target = parse_target(false);
    tokens_.expect_name("in");
    loop.iterable = expressions_.parse_tuple(false);
    if (tokens_.skip_name("if")) loop.condition = expressions_.parse_expression();
    loop.recursive = tokens_.skip_name("recursive");
    end_tag();
    ++loop_depth_;
    loop.body = parse_block({"else", "endfor"});
    --loop_depth_;
    if (tokens_.skip_name("else")) {
      loop.otherwise = parse_body("endfor");
    } else {
      tokens_.expect_name("endfor");
      end_tag();
    }
    return loop;
  }

  decltype(Statement::node) parse_set() {
    Target target = parse_target(true);
    if (tokens_.skip_operator("=")) return end_tag(Set{std::move(target), expressions_.parse_tuple()});
    std::vector<FilterUse> filters;
    if (tokens_.skip_operator("|")) filters = expressions_.parse_filter_chain();
    return SetBlock{std::move(target), std::move(filters), parse_body("endset")};
  }

  /// One name or several with commas, which may stand in parentheses.
  Target parse_target(bool allow_attribute) {
    Target first = parse_one_target(allow_attribute, 0);
    if (!tokens_.peek().is_operator(",")) return first;
    return parse_target_tuple(std::move(first), allow_attribute, 0);
  }

  Target parse_target_tuple(Target first, bool allow_attribute, int depth) {
    Target tuple;
    tuple.elements.push_back(std::move(first));
    while (tokens_.skip_operator(",")) {
      const Token& token = tokens_.peek();
      if (token.is_operator("=") || token.is_operator(")") || token.is_name("in")) break;
      tuple.elements.push_back(parse_one_target(allow_attribute, depth));
    }
    return tuple;
  }

  Target parse_one_target(bool allow_attribute, int depth) {
    if (depth > kMaxBlockNesting) fail_at_line(tokens_.peek().line, "assignment targets nested too deeply");
    if (tokens_.skip_operator("(")) {
      Target inner = parse_one_target(allow_attribute, depth + 1);
      if (tokens_.peek().is_operator(",")) inner = parse_target_tuple(std::move(inner), allow_attribute, depth + 1);
      tokens_.expect_operator(")");
      return inner;
    }
    Target target;
    const uint32_t line = tokens_.peek().line;
    target.name = tokens_.expect_any_name();
    constexpr std::array<std::string_view, 6> kConstants = {"true", "True", "false", "False", "none", "None"};
    if (std::find(kConstants.begin(), kConstants.end(), target.name) != kConstants.end()) {
      fail_at_line(line, fmt::format("cannot assign to '{}'", target.name));
    }
    target.symbol = symbols_.intern(target.name);
    if (allow_attribute && tokens_.skip_operator(".")) target.attribute = tokens_.expect_any_name();
    return target;
  }

  std::vector<Parameter> parse_parameters() {
    std::vector<Parameter> parameters;
    tokens_.expect_operator("(");
    while (!tokens_.skip_operator(")")) {
      if (!parameters.empty()) {
        tokens_.expect_operator(",");
        if (tokens_.skip_operator(")")) break;
      }
      Parameter parameter;
      parameter.name = tokens_.expect_any_name();
      parameter.symbol = symbols_.intern(parameter.name);
      if (tokens_.skip_operator("=")) {
        parameter.fallback = expressions_.parse_expression();
      } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
        tokens_.fail_expected("a default value");
      }
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  /// The body of a macro is no part of the loop around it.
  Block parse_macro_body(std::string_view end) {
    const int outer_loops = std::exchange(loop_depth_, 0);
    Block body = parse_body(end);
    loop_depth_ = outer_loops;
    return body;
  }

  MacroDefinition parse_macro() {
    MacroDefinition macro;
    macro.name = tokens_.expect_any_name();
    macro.symbol = symbols_.intern(macro.name);
    macro.parameters = parse_parameters();
    macro.body = parse_macro_body("endmacro");
    return macro;
  }

  CallBlock parse_call() {
    CallBlock block;
    block.caller.name = "caller";
    block.caller.symbol = kCallerSymbol;
    if (tokens_.peek().is_operator("(")) block.caller.parameters = parse_parameters();
    block.call = expressions_.parse_expression();
    if (!std::holds_alternative<Call>(block.call->node)) tokens_.fail_expected("a call");
    block.caller.body = parse_macro_body("endcall");
    return block;
  }

  FilterBlock parse_filter() {
    FilterBlock block;
    block.filters = expressions_.parse_filter_chain();
    block.body = parse_macro_body("endfilter");
    return block;
  }

  With parse_with() {
    With with;
    while (tokens_.peek().kind != TokenKind::kBlockEnd) {
      if (!with.assignments.empty()) tokens_.expect_operator(",");
      Target target = parse_one_target(false, 0);
      tokens_.expect_operator("=");
      with.assignments.emplace_back(std::move(target), expressions_.parse_expression());
    }
    with.body = parse_body("endwith");
    return with;
  }

  Group parse_generation() { return {parse_body("endgeneration")}; }

  TokenStream tokens_;
  SymbolTable symbols_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loop_depth_ = 0;
};

std::string described(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return fmt::format("'{}'", std::string_view(token.text).substr(0, 40));
  }
}

}  // namespace

Ast parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    fail(ErrorCode::kInvalidArgument, "[parse template] expected at most {} bytes of source, got {}", kMaxSourceBytes,
         source.size());
  }
  return StatementParser(source).run();
}

Token TokenStream::next() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool TokenStream::skip_operator(std::string_view op) {
  const bool found = peek().is_operator(op);
  if (found) next();
  return found;
}

bool TokenStream::skip_name(std::string_view name) {
  const bool found = peek().is_name(name);
  if (found) next();
  return found;
}

void TokenStream::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_expected(fmt::format("'{}'", op));
}

void TokenStream::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_expected(fmt::format("'{}'", name));
}

std::string TokenStream::expect_any_name() {
  if (peek().kind != TokenKind::kName) fail_expected("a name");
  return next().text;
}

void TokenStream::expect(TokenKind kind, std::string_view what) {
  if (peek().kind != kind) fail_expected(what);
  next();
}

void TokenStream::fail_expected(std::string_view what) const {
  fail_at_line(peek().line, fmt::format("expected {}, got {}", what, described(peek())));
}

SymbolTable::SymbolTable() {
  for (const char* name : {"loop", "caller", "varargs", "kwargs"}) intern(name);
}

Symbol SymbolTable::intern(const std::string& name) {
  const auto [place, is_new] = numbers_.emplace(name, static_cast<Symbol>(names_.size()));
  if (is_new) names_.push_back(name);
  return place->second;
}

}  // namespace mneme::jinja
