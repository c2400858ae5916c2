#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "budget/ledger.h"
#include "engine/grammar/stack_automaton.h"
#include "engine/grammar/vocabulary_trie.h"
#include "engine/sampling/token_constraint.h"

namespace mneme {

/// A grammar joined with a vocabulary: which tokens may come next in a state. Shared by all sequences with this
/// grammar, so that what one works out serves the others; safe for use from several threads.
///
/// The mask of a state comes from one walk of the vocabulary trie with the automaton, and is remembered. Most of the
/// cost is in places where nearly everything is allowed, such as the inside of a JSON string, and what is allowed there
/// hardly depends on the depth of the text around it. So the part of a stack up to the end of the current rule is
/// walked on its own, once, with the rest of the stack unknown; for a concrete stack only the tokens that leave this
/// part (those with a closing quote) are walked further.
///
/// Everything it holds counts in the ledger as Tag::kCache. What it remembers it gives back when others need room, and
/// when there is no room for more it forgets that and begins anew.
class TokenMatcher : public Reclaimer, public std::enable_shared_from_this<TokenMatcher> {
 public:
  using SetId = StackAutomaton::SetId;

  /// `ledger` must outlive the matcher. Throws Error(kOutOfBudget).
  static std::shared_ptr<TokenMatcher> create(std::shared_ptr<const Grammar> grammar,
                                              std::shared_ptr<const VocabularyTrie> trie, Ledger& ledger);
  ~TokenMatcher() override;

  /// Bytes that a matcher of a usual grammar works well with.
  static size_t usual_bytes(size_t n_tokens) { return (size_t{2} << 20) + 256 * mask_bytes(n_tokens); }

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
  /// This and mask() throw Error(kUnsupported) when the grammar is too ambiguous, Error(kOutOfBudget) when there is no
  /// room for what one token needs.
  Handle advance(const Handle& from, std::string_view text);
  bool allows(const Handle& from, std::string_view text);
  bool is_dead(const Handle& at) const { return at.state() == StackAutomaton::kDead; }
  /// Whether the text so far is complete.
  bool is_complete(const Handle& at);
  /// Tokens that may come next; those that end the answer when the text is complete. The mask is shared and does not
  /// change.
  std::shared_ptr<const TokenMask> mask(const Handle& at);
  /// Removes from `mask` the tokens under trie node `node` whose rest, behind the path to it, the grammar does not
  /// allow.
  void restrict_subtree(const Handle& at, size_t node, TokenMask& mask);

  const VocabularyTrie& trie() const { return *trie_; }
  const VocabularyView& vocabulary() const { return trie_->vocabulary(); }
  Ledger& ledger() const { return ledger_; }
  /// Bytes held for the grammar and for remembered states and masks.
  size_t bytes() const;

  std::string name() const override { return "masks of a grammar"; }
  uint64_t reclaimable(Tier tier) const override;
  double cost_per_byte() const override { return 50; }
  uint64_t reclaim(Tier tier, uint64_t bytes) override;

 private:
  TokenMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const VocabularyTrie> trie, Ledger& ledger);

  /// What the known part of a stack allows: the tokens that stay inside it or end with it, and the trie nodes where it
  /// ends.
  struct LocalMask {
    bool useful = true;  ///< false when it ends nearly everywhere; then the whole stack is walked instead
    TokenMask tokens;
    std::vector<uint32_t> exits;
  };
  /// Holds the mutex and says who does, because the ledger may ask the same thread to reclaim.
  class Lock {
   public:
    explicit Lock(const TokenMatcher& matcher) : Lock(matcher, std::unique_lock(matcher.mutex_)) {}
    Lock(const TokenMatcher& matcher, std::unique_lock<std::mutex> lock) : matcher_(matcher), lock_(std::move(lock)) {
      matcher_.locked_by_ = std::this_thread::get_id();
    }
    ~Lock() { matcher_.locked_by_ = std::thread::id(); }

   private:
    const TokenMatcher& matcher_;
    std::unique_lock<std::mutex> lock_;
  };
  static constexpr size_t kMaskBytes = size_t{16} << 20;
  static constexpr size_t kAutomatonBytes = size_t{48} << 20;

  SetId run(SetId state, std::string_view text);
  void forget_masks();
  void forget_all();
  void count_masks(size_t n_more);
  template <typename Work>
  auto with_room(Work work);
  bool locked_here() const { return locked_by_ == std::this_thread::get_id(); }
  std::shared_ptr<const TokenMask> work_out(SetId state);
  const LocalMask& local_mask(StackAutomaton::FrameId local);
  bool add_local(StackAutomaton::FrameId top, TokenMask& mask);
  bool is_wide(StackAutomaton::FrameId top) const;
  StackAutomaton::FrameId localize(StackAutomaton::FrameId top, SetId& rest);
  uint32_t canonical_count(const Grammar::Node& repeat, uint32_t done) const;
  template <typename Visit>
  void walk(SetId from, size_t begin, size_t end, size_t depth, Visit visit);
  static size_t mask_bytes(size_t n_tokens) { return (n_tokens + 63) / 64 * 8 + 160; }  // with its entry in a table
  size_t mask_bytes() const { return mask_bytes(trie_->vocabulary().size()); }
  size_t local_mask_bytes() const { return local_masks_.size() * mask_bytes() + n_local_exits_ * sizeof(uint32_t); }

  std::shared_ptr<const VocabularyTrie> trie_;
  Ledger& ledger_;
  Reservation grammar_memory_, mask_memory_;
  mutable std::mutex mutex_;
  mutable std::atomic<std::thread::id> locked_by_;
  StackAutomaton automaton_;
  std::unordered_map<SetId, std::shared_ptr<const TokenMask>> masks_;
  std::unordered_map<StackAutomaton::FrameId, LocalMask> local_masks_;
  size_t n_local_exits_ = 0;
  std::vector<SetId> path_;  ///< by depth: state after this many bytes of the current walk
};

}  // namespace mneme
