#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/grammar/rules.h"

namespace mneme {

/// What can be said of the expressions of a grammar before it runs. Linear in the size of the grammar. Keeps a reference to
/// the rules.
class RulesAnalysis {
 public:
  explicit RulesAnalysis(const Rules& rules);

  /// Whether the expression (a part of the rules) can match the empty text.
  bool nullable(const Expression& e) const { return nullable_[index_.at(&e)]; }
  /// Whether it can match any finite text at all.
  bool productive(const Expression& e) const { return productive_[index_.at(&e)]; }

  /// Throws Error(kInvalidArgument) that names a cycle of rules in which each begins with the next, directly or behind parts
  /// that may be empty.
  void refuse_left_recursion() const;

 private:
  std::vector<bool> propagate(bool characters_hold, bool literals_hold) const;
  void collect_leftmost(const Expression& e, std::vector<uint32_t>& out) const;

  const Rules& rules_;
  std::vector<const Expression*> expressions_;
  std::vector<uint32_t> parent_;  ///< index of the enclosing expression; of a body: n + its rule
  std::unordered_map<const Expression*, uint32_t> index_;
  std::vector<bool> nullable_, productive_;
};

}  // namespace mneme
