#include "engine/grammar/rules_analysis.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace mneme {

using Kind = Expression::Kind;

RulesAnalysis::RulesAnalysis(const Rules& rules) : rules_(rules) {
  std::vector<std::pair<const Expression*, int64_t>> pending;  // parent: index, or -1 - rule
  for (size_t rule = rules.bodies.size(); rule-- > 0;)
    pending.emplace_back(&rules.bodies[rule], -1 - static_cast<int64_t>(rule));
  std::vector<int64_t> parents;
  while (!pending.empty()) {
    const auto [expression, parent] = pending.back();
    pending.pop_back();
    const auto index = static_cast<uint32_t>(expressions_.size());
    index_.emplace(expression, index);
    expressions_.push_back(expression);
    parents.push_back(parent);
    for (const Expression& part : expression->parts) pending.emplace_back(&part, index);
  }
  const auto n = static_cast<int64_t>(expressions_.size());
  for (const int64_t parent : parents) parent_.push_back(static_cast<uint32_t>(parent >= 0 ? parent : n - 1 - parent));
  nullable_ = propagate(false, false);
  productive_ = propagate(true, true);
}

/// The least solution of: a sequence holds when all its parts do, alternatives when one does, a repetition when its
/// body does or it may be done zero times, a reference when the rule's body does. Literals that are not empty and
/// characters hold as told.
std::vector<bool> RulesAnalysis::propagate(bool characters_hold, bool literals_hold) const {
  const size_t n = expressions_.size();
  std::vector<std::vector<uint32_t>> references(rules_.bodies.size());
  std::vector<uint32_t> missing(n, 1);  // parts that must still hold
  std::vector<bool> holds(n, false);
  std::vector<uint32_t> pending;
  const auto set = [&](uint32_t index) {
    if (holds[index]) return;
    holds[index] = true;
    pending.push_back(index);
  };
  for (uint32_t i = 0; i < n; ++i) {
    const Expression& e = *expressions_[i];
    switch (e.kind) {
      case Kind::kLiteral:
        if (literals_hold || e.text.empty()) set(i);
        break;
      case Kind::kCharacters:
        if (characters_hold) set(i);
        break;
      case Kind::kRule:
        references[e.rule].push_back(i);
        break;
      case Kind::kSequence:
        missing[i] = static_cast<uint32_t>(e.parts.size());
        if (e.parts.empty()) set(i);
        break;
      case Kind::kAlternatives:
        break;
      case Kind::kRepeat:
        if (e.min == 0) set(i);
        break;
    }
  }
  while (!pending.empty()) {
    const uint32_t parent = parent_[pending.back()];
    pending.pop_back();
    if (parent >= n) {
      for (const uint32_t reference : references[parent - n]) set(reference);
    } else if (!holds[parent] && (expressions_[parent]->kind != Kind::kSequence || --missing[parent] == 0)) {
      set(parent);
    }
  }
  return holds;
}

/// Rules that `e` may begin with, without those inside parts that match nothing.
void RulesAnalysis::collect_leftmost(const Expression& e, std::vector<uint32_t>& out) const {
  switch (e.kind) {
    case Kind::kLiteral:
    case Kind::kCharacters:
      return;
    case Kind::kRule:
      out.push_back(e.rule);
      return;
    case Kind::kSequence:
      for (const Expression& part : e.parts) {
        collect_leftmost(part, out);
        if (!nullable(part)) return;
      }
      return;
    case Kind::kAlternatives:
      for (const Expression& part : e.parts) collect_leftmost(part, out);
      return;
    case Kind::kRepeat:
      if (e.max > 0) collect_leftmost(e.parts[0], out);
      return;
  }
}

void RulesAnalysis::refuse_left_recursion() const {
  const size_t n = rules_.bodies.size();
  std::vector<std::vector<uint32_t>> leftmost(n);
  for (size_t rule = 0; rule < n; ++rule) collect_leftmost(rules_.bodies[rule], leftmost[rule]);
  // Depth-first search for a rule that is met again while it is still open.
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  std::vector<Mark> marks(n, Mark::kNew);
  std::vector<std::pair<uint32_t, size_t>> path;  // rule, next of its leftmost rules
  for (uint32_t start = 0; start < n; ++start) {
    if (marks[start] != Mark::kNew) continue;
    path.emplace_back(start, 0);
    marks[start] = Mark::kOpen;
    while (!path.empty()) {
      auto& [rule, next] = path.back();
      if (next == leftmost[rule].size()) {
        marks[rule] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const uint32_t target = leftmost[rule][next++];
      if (marks[target] == Mark::kOpen) {
        std::string cycle;
        bool inside = false;
        for (const auto& [open, unused] : path) {
          inside = inside || open == target;
          if (inside && cycle.size() < 200) cycle += shortened(rules_.names[open], 60) + " -> ";
        }
        fail(ErrorCode::kInvalidArgument, "[compile grammar] expected rules without left recursion, found {}{}", cycle,
             shortened(rules_.names[target], 60));
      }
      if (marks[target] == Mark::kNew) {
        marks[target] = Mark::kOpen;
        path.emplace_back(target, 0);
      }
    }
  }
}

}  // namespace mneme
