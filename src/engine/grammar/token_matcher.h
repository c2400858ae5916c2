#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/grammar/stack_automaton.h"
#include "engine/grammar/vocabulary_trie.h"
#include "engine/sampling/token_constraint.h"

namespace mneme {

/// A grammar joined with a vocabulary: which tokens may come next in a state. Shared by all sequences with this grammar, so
/// that what one works out serves the others; safe for use from several threads.
///
/// The mask of a state comes from one walk of the vocabulary trie with the automaton, and is remembered. Most of the cost is
/// in places where nearly everything is allowed, such as the inside of a JSON string, and what is allowed there hardly
/// depends on the depth of the text around it. So the part of a stack up to the end of the current rule is walked on its
/// own, once, with the rest of the stack unknown; for a concrete stack only the tokens that leave this part (those with a
/// closing quote) are walked further.
class TokenMatcher : public std::enable_shared_from_this<TokenMatcher> {
 public:
  using SetId = StackAutomaton::SetId;

  static std::shared_ptr<TokenMatcher> create(std::shared_ptr<const Grammar> grammar,
                                              std::shared_ptr<const VocabularyTrie> trie);

  /// A state that is kept as long as the handle lives, and with it the matcher. Copies are cheap.
  class Handle {
   public:
    Handle(const Handle& other) : Handle(other.matcher_, other.state_) {}
    Handle& operator=(const Handle& other);
    ~Handle();
    SetId state() const { return state_; }

   private:
    friend class TokenMatcher;
    struct Retained {};
    Handle(std::shared_ptr<TokenMatcher> matcher, SetId state);
    Handle(std::shared_ptr<TokenMatcher> matcher, SetId state, Retained)
        : matcher_(std::move(matcher)), state_(state) {}

    std::shared_ptr<TokenMatcher> matcher_;
    SetId state_;
  };

  Handle start() { return Handle(shared_from_this(), automaton_.start()); }
  /// The state after `text`; the dead state when the grammar does not allow it.
  /// This and mask() throw Error(kUnsupported) when the grammar is too ambiguous.
  Handle advance(const Handle& from, std::string_view text);
  bool allows(const Handle& from, std::string_view text);
  bool is_dead(const Handle& at) const { return at.state() == StackAutomaton::kDead; }
  /// Whether the text so far is complete.
  bool is_complete(const Handle& at);
  /// Tokens that may come next; those that end the answer when the text is complete. The mask is shared and does not change.
  std::shared_ptr<const TokenMask> mask(const Handle& at);
  /// Removes from `mask` the tokens under trie node `node` whose rest, behind the path to it, the grammar does not allow.
  void restrict_subtree(const Handle& at, size_t node, TokenMask& mask);

  const VocabularyTrie& trie() const { return *trie_; }
  const VocabularyView& vocabulary() const { return trie_->vocabulary(); }
  /// Bytes held for remembered states and masks.
  size_t bytes() const;

 private:
  TokenMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const VocabularyTrie> trie);

  /// What the known part of a stack allows: the tokens that stay inside it or end with it, and the trie nodes where it ends.
  struct LocalMask {
    bool useful = true;  ///< false when it ends nearly everywhere; then the whole stack is walked instead
    TokenMask tokens;
    std::vector<uint32_t> exits;
  };
  static constexpr size_t kMaskBytes = size_t{16} << 20;
  static constexpr size_t kAutomatonBytes = size_t{48} << 20;

  SetId run(SetId state, std::string_view text);
  void prepare();
  std::shared_ptr<const TokenMask> work_out(SetId state);
  const LocalMask& local_mask(StackAutomaton::FrameId local);
  bool add_local(StackAutomaton::FrameId top, TokenMask& mask);
  bool is_wide(StackAutomaton::FrameId top) const;
  StackAutomaton::FrameId localize(StackAutomaton::FrameId top, SetId& rest);
  uint32_t canonical_count(const Grammar::Node& repeat, uint32_t done) const;
  template <typename Visit>
  void walk(SetId from, size_t begin, size_t end, size_t depth, Visit visit);
  size_t mask_bytes() const { return trie_->vocabulary().size() / 8; }

  std::shared_ptr<const VocabularyTrie> trie_;
  mutable std::mutex mutex_;
  StackAutomaton automaton_;
  std::unordered_map<SetId, std::shared_ptr<const TokenMask>> masks_;
  std::unordered_map<StackAutomaton::FrameId, LocalMask> local_masks_;
  size_t n_local_exits_ = 0;
  std::vector<SetId> path_;  ///< by depth: state after this many bytes of the current walk
};

}  // namespace mneme
