#include "train/abacus/syntax.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"

namespace mneme::train::abacus {
namespace {

constexpr uint32_t kMostArguments = 16;

bool is_blank(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return c >= 'a' && c <= 'z';
}

bool is_name(std::string_view atom) {
  return !atom.empty() && is_letter(atom[0]) &&
         std::all_of(atom.begin(), atom.end(), [](char c) { return is_letter(c) || is_digit(c) || c == '-'; });
}

const BuiltinInfo* find_builtin(std::string_view name) {
  const auto& all = builtins();
  const auto found = std::find_if(all.begin(), all.end(), [&](const BuiltinInfo& b) { return b.name == name; });
  return found == all.end() ? nullptr : &*found;
}

bool is_reserved(std::string_view name) {
  constexpr std::string_view kForms[] = {"def", "if", "let", "map", "keep", "fold"};
  return std::find(std::begin(kForms), std::end(kForms), name) != std::end(kForms) || find_builtin(name) != nullptr;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {
    if (text.size() > kMostBytes) refuse(fmt::format("at most {} bytes", kMostBytes), std::to_string(text.size()));
  }

  Program run() {
    for (next(); !token_.empty(); next()) definition();
    if (program_.functions.empty()) refuse("a definition", "none");
    for (const Call& call : calls_) resolve(call);
    return std::move(program_);
  }

 private:
  struct Call {
    uint32_t node;
    std::string_view name;
    size_t at;
  };

  [[noreturn]] void refuse(const std::string& expected, std::string_view found) const {
    fail(ErrorCode::kCorruptData, "[abacus] byte {}: expected {}, found {}", at_, expected,
         found.empty() ? "the end" : std::string(found.substr(0, 40)));
  }

  /// Reads the next token: a parenthesis, an atom, or nothing at the end.
  void next() {
    size_t i = at_ + token_.size();
    while (i < text_.size() && (is_blank(text_[i]) || text_[i] == ';')) {
      if (text_[i] == ';') {
        i = std::min(text_.find('\n', i), text_.size());
      } else {
        ++i;
      }
    }
    at_ = i;
    if (i < text_.size() && (text_[i] == '(' || text_[i] == ')')) {
      token_ = text_.substr(i, 1);
      return;
    }
    while (i < text_.size() && !is_blank(text_[i]) && text_[i] != '(' && text_[i] != ')' && text_[i] != ';') ++i;
    token_ = text_.substr(at_, i - at_);
  }

  void expect(std::string_view wanted) {
    if (token_ != wanted) refuse(std::string(wanted), token_);
    next();
  }

  /// Closes a form but leaves the token, so that the caller moves on when it wants to.
  void close() {
    if (token_ != ")") refuse(")", token_);
  }

  std::string_view new_name() {
    if (!is_name(token_) || is_reserved(token_)) refuse("a new name", token_);
    const std::string_view name = token_;
    next();
    return name;
  }

  void definition() {
    expect("(");
    expect("def");
    Function function;
    function.name = new_name();
    if (program_.find(function.name) != nullptr) refuse("each function once", function.name);
    expect("(");
    scope_.clear();
    n_slots_ = 0;
    while (token_ != ")") bind(new_name());
    if (scope_.size() > kMostParameters) refuse(fmt::format("at most {} parameters", kMostParameters), function.name);
    next();
    function.n_parameters = n_slots_;
    function.body = expression(0);
    function.n_slots = n_slots_;
    close();
    program_.functions.push_back(std::move(function));
  }

  uint32_t bind(std::string_view name) {
    scope_.emplace_back(name, n_slots_);
    return n_slots_++;
  }

  uint32_t add(Node node) {
    if (program_.nodes.size() == kMostNodes) refuse(fmt::format("at most {} expressions", kMostNodes), token_);
    program_.nodes.push_back(std::move(node));
    return static_cast<uint32_t>(program_.nodes.size() - 1);
  }

  uint32_t expression(size_t nesting) {
    if (nesting == kMostNesting) refuse(fmt::format("at most {} levels", kMostNesting), token_);
    if (token_ == "(") {
      next();
      const uint32_t node = form(nesting + 1);
      close();
      next();
      return node;
    }
    Node node{NodeKind::kName, {}, 0, 0, {}};
    if (is_name(token_)) {
      const auto found = std::find_if(scope_.rbegin(), scope_.rend(), [&](const auto& n) { return n.first == token_; });
      if (found == scope_.rend()) refuse("a known name", token_);
      node.slot = found->second;
    } else {
      node.kind = NodeKind::kNumber;
      const auto [end, error] = std::from_chars(token_.data(), token_.data() + token_.size(), node.number);
      if (token_.empty() || error != std::errc() || end != token_.data() + token_.size()) {
        refuse("an expression", token_);
      }
    }
    next();
    return add(std::move(node));
  }

  /// What stands inside parentheses; the token is then the closing one.
  uint32_t form(size_t nesting) {
    const std::string_view head = token_;
    const size_t at = at_;
    if (head.empty() || head == "(" || head == ")") refuse("a function", head);
    next();
    Node node{NodeKind::kCall, {}, 0, 0, {}};
    const size_t n_names = scope_.size();
    if (head == "let") {
      node.kind = NodeKind::kLet;
      const std::string_view name = new_name();
      node.children.push_back(expression(nesting));
      node.slot = bind(name);
      node.children.push_back(expression(nesting));
    } else if (head == "map" || head == "keep") {
      node.kind = head == "map" ? NodeKind::kMap : NodeKind::kKeep;
      node.slot = bind(new_name());
      node.children.push_back(expression(nesting));
      scope_.resize(n_names);
      node.children.push_back(expression(nesting));
    } else if (head == "fold") {
      node.kind = NodeKind::kFold;
      const std::string_view sum = new_name();
      node.children.push_back(expression(nesting));
      node.slot = bind(sum);
      bind(new_name());
      node.children.push_back(expression(nesting));
      scope_.resize(n_names);
      node.children.push_back(expression(nesting));
    } else {
      while (token_ != ")") {
        if (node.children.size() == kMostArguments) refuse(fmt::format("at most {} arguments", kMostArguments), token_);
        node.children.push_back(expression(nesting));
      }
      const BuiltinInfo* builtin = find_builtin(head);
      if (head == "if") {
        node.kind = NodeKind::kIf;
        if (node.children.size() != 3) refuse("three parts of if", std::to_string(node.children.size()));
      } else if (builtin != nullptr) {
        node.kind = NodeKind::kBuiltin;
        node.builtin = builtin->builtin;
        if (node.children.size() < builtin->least || node.children.size() > builtin->most) {
          refuse(fmt::format("{} to {} arguments of {}", builtin->least, builtin->most, head),
                 std::to_string(node.children.size()));
        }
      } else {
        calls_.push_back({static_cast<uint32_t>(program_.nodes.size()), head, at});
      }
    }
    scope_.resize(n_names);
    return add(std::move(node));
  }

  void resolve(const Call& call) {
    at_ = call.at;
    Node& node = program_.nodes[call.node];
    const Function* function = program_.find(call.name);
    if (function == nullptr) refuse("a known function", call.name);
    if (function->n_parameters != node.children.size()) {
      refuse(fmt::format("{} arguments of {}", function->n_parameters, call.name),
             std::to_string(node.children.size()));
    }
    node.slot = static_cast<uint32_t>(function - program_.functions.data());
  }

  std::string_view text_, token_;
  size_t at_ = 0;  ///< Of the token.
  Program program_;
  std::vector<std::pair<std::string_view, uint32_t>> scope_;
  uint32_t n_slots_ = 0;
  std::vector<Call> calls_;
};

}  // namespace

const std::vector<BuiltinInfo>& builtins() {
  using B = Builtin;
  static const std::vector<BuiltinInfo> kAll = {{"+", B::kAdd, 2, 2},
                                                {"-", B::kSub, 2, 2},
                                                {"*", B::kMul, 2, 2},
                                                {"div", B::kDiv, 2, 2},
                                                {"mod", B::kMod, 2, 2},
                                                {"<", B::kLess, 2, 2},
                                                {">", B::kGreater, 2, 2},
                                                {"=", B::kEqual, 2, 2},
                                                {"and", B::kAnd, 2, 2},
                                                {"or", B::kOr, 2, 2},
                                                {"not", B::kNot, 1, 1},
                                                {"abs", B::kAbs, 1, 1},
                                                {"even", B::kEven, 1, 1},
                                                {"odd", B::kOdd, 1, 1},
                                                {"min", B::kMin, 1, 2},
                                                {"max", B::kMax, 1, 2},
                                                {"sum", B::kSum, 1, 1},
                                                {"len", B::kLen, 1, 1},
                                                {"first", B::kFirst, 1, 1},
                                                {"last", B::kLast, 1, 1},
                                                {"rev", B::kRev, 1, 1},
                                                {"sort", B::kSort, 1, 1},
                                                {"take", B::kTake, 2, 2},
                                                {"drop", B::kDrop, 2, 2},
                                                {"range", B::kRange, 2, 2},
                                                {"cons", B::kCons, 2, 2},
                                                {"cat", B::kCat, 2, 2},
                                                {"nth", B::kNth, 2, 2},
                                                {"list", B::kList, 0, kMostArguments}};
  return kAll;
}

const Function* Program::find(std::string_view name) const {
  const auto found =
      std::find_if(functions.begin(), functions.end(), [&](const Function& f) { return f.name == name; });
  return found == functions.end() ? nullptr : &*found;
}

Program parse(std::string_view text) {
  return Parser(text).run();
}

std::string_view first_definition(std::string_view text) {
  size_t open = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ';') {
      i = text.find('\n', i);
      if (i == std::string_view::npos) break;
    } else if (text[i] == '(') {
      ++open;
    } else if (text[i] == ')' && open > 0 && --open == 0) {
      return text.substr(0, i + 1);
    }
  }
  return text;
}

}  // namespace mneme::train::abacus
