#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/grammar/byte_automata.h"
#include "engine/grammar/rules.h"

namespace mneme {

/// A grammar compiled for matching: immutable, shared by all sequences that use it.
///
/// It is a set of procedures: the rules, and the body of each repetition. A procedure is a graph of nodes; what comes
/// after a node is `next`. A repetition is one node with a counter, so x{0,1000} is not expanded. Parts that match no
/// finite text are left out, so that whoever follows the nodes can always come to an end.
class Grammar {
 public:
  using NodeId = uint32_t;
  using ProcedureId = uint32_t;
  static constexpr NodeId kEnd = 0;  ///< the end of a procedure

  enum class Kind : uint8_t { kEnd, kCharacters, kCall, kAlternatives, kRepeat };

  struct Node {
    Kind kind = Kind::kEnd;
    bool skippable = false;  ///< kCall: the rule can match the empty text
    uint32_t rule = 0;       ///< rule that the node belongs to
    uint32_t target =
        0;               ///< kCharacters: state of characters(); kCall, kRepeat: procedure; kAlternatives: first branch
    NodeId next = kEnd;  ///< not for kAlternatives, whose branches lead on themselves
    uint32_t min = 0;    ///< kRepeat; 0 when the body can match the empty text
    uint32_t max = 0;    ///< kRepeat: largest count or Expression::kUnlimited; kAlternatives: number of branches
  };

  /// Throws Error(kInvalidArgument) for left recursion (which names the cycle of rules) and for a root that matches no
  /// finite text.
  explicit Grammar(const Rules& rules);
  /// Parses GBNF (gbnf.h) and compiles it.
  explicit Grammar(std::string_view gbnf);

  const Node& node(NodeId id) const { return nodes_[id]; }
  size_t n_nodes() const { return nodes_.size(); }
  NodeId branch(uint32_t index) const { return branches_[index]; }
  const ByteAutomata& characters() const { return characters_; }

  /// Bytes held.
  size_t bytes() const;
  /// The most that parsing and compiling a text takes while it lasts, for each of its bytes.
  static constexpr size_t kCompileBytes = 288;

  ProcedureId root() const { return root_; }
  bool root_is_nullable() const { return root_is_nullable_; }
  size_t n_procedures() const { return starts_.size(); }
  NodeId start_of(ProcedureId procedure) const { return starts_[procedure]; }
  /// A number for each procedure, 0 to n_procedures() - 1. A procedure that calls another before it has read anything
  /// has the lower rank; there is such an order because there is no left recursion.
  uint32_t rank(ProcedureId procedure) const { return ranks_[procedure]; }
  ProcedureId procedure_of_rank(uint32_t rank) const { return order_[rank]; }

 private:
  class Compiler;
  void rank_procedures();
  std::vector<ProcedureId> leftmost_calls(ProcedureId procedure, std::vector<bool>& seen) const;

  std::vector<Node> nodes_;
  std::vector<NodeId> branches_;
  std::vector<NodeId> starts_;  ///< rules first, then bodies
  std::vector<uint32_t> ranks_;
  std::vector<ProcedureId> order_;
  ProcedureId root_ = 0;
  bool root_is_nullable_ = false;
  ByteAutomata characters_;
};

}  // namespace mneme
