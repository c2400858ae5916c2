#include "engine/grammar/grammar.h"

#include <algorithm>

#include "base/error.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/rules_analysis.h"

namespace mneme {

/// Builds the nodes of an expression from its end: compile(e, next) returns the node at which e begins when `next`
/// follows.
class Grammar::Compiler {
 public:
  Compiler(Grammar& grammar, const Rules& rules, const RulesAnalysis& analysis)
      : grammar_(grammar), rules_(rules), analysis_(analysis) {
    grammar.starts_.resize(rules.bodies.size(), kEnd);
  }

  void compile_rule(uint32_t rule) {
    rule_ = rule;
    const Expression& body = rules_.bodies[rule];
    if (analysis_.productive(body)) grammar_.starts_[rule] = compile(body, kEnd);
  }

 private:
  NodeId compile(const Expression& e, NodeId next) {
    switch (e.kind) {
      case Expression::Kind::kLiteral:
        for (auto c = e.text.rbegin(); c != e.text.rend(); ++c) next = characters(CharSet::single(*c), next);
        return next;
      case Expression::Kind::kCharacters:
        return characters(e.characters, next);
      case Expression::Kind::kRule: {
        const bool skippable = analysis_.nullable(rules_.bodies[e.rule]);
        return add({.kind = Kind::kCall, .skippable = skippable, .target = e.rule, .next = next});
      }
      case Expression::Kind::kSequence:
        for (auto part = e.parts.rbegin(); part != e.parts.rend(); ++part) next = compile(*part, next);
        return next;
      case Expression::Kind::kAlternatives:
        return alternatives(e, next);
      case Expression::Kind::kRepeat:
        return repeat(e, next);
    }
    return next;
  }

  NodeId characters(const CharSet& set, NodeId next) {
    return add({.kind = Kind::kCharacters, .target = grammar_.characters_.add(set), .next = next});
  }

  NodeId alternatives(const Expression& e, NodeId next) {
    std::vector<NodeId> branches;
    for (const Expression& part : e.parts) {
      if (analysis_.productive(part)) branches.push_back(compile(part, next));
    }
    if (branches.size() == 1) return branches.front();
    const auto first = static_cast<uint32_t>(grammar_.branches_.size());
    grammar_.branches_.insert(grammar_.branches_.end(), branches.begin(), branches.end());
    return add({.kind = Kind::kAlternatives, .target = first, .max = static_cast<uint32_t>(branches.size())});
  }

  NodeId repeat(const Expression& e, NodeId next) {
    const Expression& body = e.parts[0];
    if (e.max == 0 || !analysis_.productive(body)) return next;
    if (e.min == 1 && e.max == 1) return compile(body, next);
    const NodeId start = compile(body, kEnd);
    if (start == kEnd) return next;
    grammar_.starts_.push_back(start);
    return add({.kind = Kind::kRepeat,
                .target = static_cast<uint32_t>(grammar_.starts_.size() - 1),
                .next = next,
                .min = analysis_.nullable(body) ? 0 : e.min,
                .max = e.max});
  }

  NodeId add(Node node) {
    node.rule = rule_;
    grammar_.nodes_.push_back(node);
    return static_cast<NodeId>(grammar_.nodes_.size() - 1);
  }

  Grammar& grammar_;
  const Rules& rules_;
  const RulesAnalysis& analysis_;
  uint32_t rule_ = 0;
};

Grammar::Grammar(const Rules& rules) : nodes_(1), root_(rules.root) {
  const RulesAnalysis analysis(rules);
  analysis.refuse_left_recursion();
  const Expression& root = rules.bodies[rules.root];
  if (!analysis.productive(root)) {
    fail(ErrorCode::kInvalidArgument,
         "[compile grammar] expected a root that can end, found that '{}' matches no finite text",
         rules.names[rules.root]);
  }
  root_is_nullable_ = analysis.nullable(root);
  Compiler compiler(*this, rules, analysis);
  for (uint32_t rule = 0; rule < rules.bodies.size(); ++rule) compiler.compile_rule(rule);
  rank_procedures();
}

Grammar::Grammar(std::string_view gbnf) : Grammar(parse_gbnf(gbnf)) {}

size_t Grammar::bytes() const {
  return nodes_.capacity() * sizeof(Node) +
         (branches_.capacity() + starts_.capacity() + ranks_.capacity() + order_.capacity()) * sizeof(uint32_t) +
         characters_.bytes();
}

/// Procedures that this one may call before it has read anything. A node belongs to one procedure only, so `seen` may
/// be shared between calls for different ones.
std::vector<Grammar::ProcedureId> Grammar::leftmost_calls(ProcedureId procedure, std::vector<bool>& seen) const {
  std::vector<ProcedureId> calls;
  std::vector<NodeId> pending = {starts_[procedure]};
  while (!pending.empty()) {
    const NodeId id = pending.back();
    pending.pop_back();
    if (seen[id]) continue;
    seen[id] = true;
    const Node& n = nodes_[id];
    switch (n.kind) {
      case Kind::kEnd:
      case Kind::kCharacters:
        break;
      case Kind::kCall:
      case Kind::kRepeat:
        calls.push_back(n.target);
        if (n.kind == Kind::kCall ? n.skippable : n.min == 0) pending.push_back(n.next);
        break;
      case Kind::kAlternatives:
        for (uint32_t i = 0; i < n.max; ++i) pending.push_back(branches_[n.target + i]);
        break;
    }
  }
  return calls;
}

/// Topological order by depth-first search: a procedure is placed before all that it can reach.
void Grammar::rank_procedures() {
  const size_t n = starts_.size();
  std::vector<bool> seen(n, false), seen_nodes(nodes_.size(), false);
  struct Open {
    ProcedureId procedure;
    std::vector<ProcedureId> calls;
  };
  std::vector<Open> path;
  for (ProcedureId start = 0; start < n; ++start) {
    if (seen[start]) continue;
    seen[start] = true;
    path.push_back({start, leftmost_calls(start, seen_nodes)});
    while (!path.empty()) {
      if (path.back().calls.empty()) {
        order_.push_back(path.back().procedure);
        path.pop_back();
        continue;
      }
      const ProcedureId next = path.back().calls.back();
      path.back().calls.pop_back();
      if (seen[next]) continue;
      seen[next] = true;
      path.push_back({next, leftmost_calls(next, seen_nodes)});
    }
  }
  std::reverse(order_.begin(), order_.end());
  ranks_.resize(n);
  for (uint32_t rank = 0; rank < n; ++rank) ranks_[order_[rank]] = rank;
}

}  // namespace mneme
