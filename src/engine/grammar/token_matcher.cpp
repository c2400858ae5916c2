#include "engine/grammar/token_matcher.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mneme {

using FrameId = StackAutomaton::FrameId;
using SetId = StackAutomaton::SetId;

namespace {

/// A position that takes at least this many different bytes is worth a walk of its own.
constexpr size_t kWideBytes = 32;
/// More places than this are walked together: each local mask costs a pass over the words of a mask.
constexpr size_t kMaxLocalFrames = 16;

}  // namespace

TokenMatcher::TokenMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const VocabularyTrie> trie,
                           Ledger& ledger)
    : trie_(std::move(trie)),
      ledger_(ledger),
      grammar_memory_(ledger.reserve(Tag::kCache, grammar->bytes(), "grammar")),
      mask_memory_(ledger.reserve(Tag::kCache, 0, "masks of a grammar")),
      automaton_(std::move(grammar), ledger.reserve(Tag::kCache, 0, "states of a grammar")),
      path_(trie_->longest_text() + 1) {
  ledger_.add_reclaimer(this);
}

TokenMatcher::~TokenMatcher() {
  ledger_.remove_reclaimer(this);
}

std::shared_ptr<TokenMatcher> TokenMatcher::create(std::shared_ptr<const Grammar> grammar,
                                                   std::shared_ptr<const VocabularyTrie> trie, Ledger& ledger) {
  return std::shared_ptr<TokenMatcher>(new TokenMatcher(std::move(grammar), std::move(trie), ledger));
}

TokenMatcher::Handle::Handle(std::shared_ptr<TokenMatcher> matcher, SetId state)
    : matcher_(std::move(matcher)), state_(state) {
  const Lock lock(*matcher_);
  matcher_->automaton_.retain(state_);
}

TokenMatcher::Handle& TokenMatcher::Handle::operator=(const Handle& other) {
  Handle copy(other);
  std::swap(matcher_, copy.matcher_);
  std::swap(state_, copy.state_);
  return *this;
}

TokenMatcher::Handle::~Handle() {
  const Lock lock(*matcher_);
  matcher_->automaton_.release(state_);
}

void TokenMatcher::forget_masks() {
  masks_.clear();
  local_masks_.clear();
  n_local_exits_ = 0;
  count_masks(0);
}

/// Only while no state is in use but those behind handles.
void TokenMatcher::forget_all() {
  forget_masks();
  automaton_.collect();
}

/// Counts the masks that are kept and `n_more` of them.
void TokenMatcher::count_masks(size_t n_more) {
  mask_memory_.resize((masks_.size() + n_more) * mask_bytes() + local_mask_bytes());
}

/// Does `work` under the lock, with a new allowance. What takes too much room is forgotten before, and everything when
/// the ledger has no room; then `work` is done again. It uses no state but those behind handles.
template <typename Work>
auto TokenMatcher::with_room(Work work) {
  const Lock lock(*this);
  if (automaton_.bytes() > kAutomatonBytes) {
    forget_all();
  } else if (masks_.size() * mask_bytes() > kMaskBytes || local_mask_bytes() > kMaskBytes) {
    forget_masks();
  }
  automaton_.limit_work();
  try {
    return work();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kOutOfBudget) throw;
  }
  forget_all();
  automaton_.limit_work();
  return work();
}

uint64_t TokenMatcher::reclaimable(Tier tier) const {
  if (tier != Tier::kRam || locked_here()) return 0;
  const std::unique_lock lock(mutex_, std::try_to_lock);
  return lock ? mask_memory_.bytes() : 0;
}

uint64_t TokenMatcher::reclaim(Tier tier, uint64_t) {
  if (tier != Tier::kRam || locked_here()) return 0;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return 0;
  const Lock mine(*this, std::move(lock));
  const uint64_t freed = mask_memory_.bytes();
  forget_masks();
  return freed;
}

TokenMatcher::SetId TokenMatcher::run(SetId state, std::string_view text) {
  for (const char c : text) {
    if (state == StackAutomaton::kDead) break;
    state = automaton_.step(state, static_cast<unsigned char>(c));
  }
  return state;
}

TokenMatcher::Handle TokenMatcher::advance(const Handle& from, std::string_view text) {
  return with_room([&] {
    const SetId state = run(from.state(), text);
    automaton_.retain(state);
    return Handle(shared_from_this(), state, Handle::Retained{});
  });
}

bool TokenMatcher::allows(const Handle& from, std::string_view text) {
  return with_room([&] { return run(from.state(), text) != StackAutomaton::kDead; });
}

bool TokenMatcher::is_complete(const Handle& at) {
  const Lock lock(*this);
  return automaton_.is_complete(at.state());
}

std::shared_ptr<const TokenMask> TokenMatcher::mask(const Handle& at) {
  return with_room([&] {
    const auto found = masks_.find(at.state());
    return found != masks_.end() ? found->second : masks_.emplace(at.state(), work_out(at.state())).first->second;
  });
}

/// Visits the trie nodes in [begin, end), which lie below one node of the given depth, with the state after their text;
/// subtrees below dead states are skipped.
template <typename Visit>
void TokenMatcher::walk(SetId from, size_t begin, size_t end, size_t depth, Visit visit) {
  path_[depth] = from;
  for (size_t i = begin; i < end;) {
    const VocabularyTrie::Node& node = trie_->node(i);
    const SetId state = automaton_.step(path_[node.depth - 1u], node.byte);
    visit(i, state);
    if (state == StackAutomaton::kDead) {
      i = node.end;
    } else {
      path_[node.depth] = state;
      ++i;
    }
  }
}

std::shared_ptr<const TokenMask> TokenMatcher::work_out(SetId state) {
  count_masks(1);
  auto mask = std::make_shared<TokenMask>(trie_->vocabulary().size());
  if (automaton_.is_complete(state)) {
    for (const TokenId id : trie_->ends_of_generation()) mask->set(id);
  }
  std::vector<FrameId> apart, together;
  for (const FrameId top : automaton_.frames(state)) (is_wide(top) ? apart : together).push_back(top);
  if (apart.size() > kMaxLocalFrames) {
    together.insert(together.end(), apart.begin(), apart.end());
    apart.clear();
  }
  for (const FrameId top : apart) {
    if (!add_local(top, *mask)) together.push_back(top);
  }
  walk(automaton_.set_of(together), 0, trie_->n_nodes(), 0, [&](size_t i, SetId after) {
    if (after == StackAutomaton::kDead) return;
    for (const TokenId id : trie_->tokens_at(i)) mask->set(id);
  });
  return mask;
}

bool TokenMatcher::is_wide(FrameId top) const {
  if (top == StackAutomaton::kBottom || top == StackAutomaton::kOpen) return false;
  return automaton_.grammar().characters().n_bytes(automaton_.frame(top).value) >= kWideBytes;
}

/// Adds the tokens that one top frame allows; false when its local mask is of no use.
bool TokenMatcher::add_local(FrameId top, TokenMask& mask) {
  SetId rest = StackAutomaton::kDead;
  const FrameId local = localize(top, rest);
  const LocalMask& known = local_mask(local);
  if (!known.useful) return false;
  mask.add(known.tokens);
  if (known.exits.empty()) return true;
  const SetId after = automaton_.resume(rest);
  for (const uint32_t exit : known.exits) {
    const VocabularyTrie::Node& node = trie_->node(exit);
    walk(after, exit + 1, node.end, node.depth, [&](size_t i, SetId state) {
      if (state == StackAutomaton::kDead) return;
      for (const TokenId id : trie_->tokens_at(i)) mask.set(id);
    });
  }
  return true;
}

/// The frame with the repetitions of one rule around it, and nothing known below; `rest` is what really lies below.
/// Counters are reduced to what the longest token can tell apart.
FrameId TokenMatcher::localize(FrameId top, SetId& rest) {
  const Grammar& grammar = automaton_.grammar();
  const StackAutomaton::Frame at = automaton_.frame(top);
  std::vector<StackAutomaton::Frame> repetitions;
  rest = at.below;
  while (automaton_.frames(rest).size() == 1 && automaton_.frames(rest).front() != StackAutomaton::kBottom) {
    const StackAutomaton::Frame f = automaton_.frame(automaton_.frames(rest).front());
    const Grammar::Node& node = grammar.node(f.node);
    if (node.kind != Grammar::Kind::kRepeat) break;
    if (!repetitions.empty() && grammar.node(repetitions.back().node).rule != node.rule) break;
    repetitions.push_back(f);
    rest = f.below;
  }
  SetId below = automaton_.set_of({StackAutomaton::kOpen});
  for (auto f = repetitions.rbegin(); f != repetitions.rend(); ++f) {
    below = automaton_.set_of({automaton_.push(f->node, canonical_count(grammar.node(f->node), f->value), below)});
  }
  return automaton_.push(at.node, at.value, below);
}

/// A count with the same future as `done` over the length of any token. Each time takes at least one byte, so what
/// matters is how many times are still needed, and how many are still possible, up to one more than the longest text.
uint32_t TokenMatcher::canonical_count(const Grammar::Node& repeat, uint32_t done) const {
  const auto horizon = static_cast<uint32_t>(trie_->longest_text()) + 1;
  if (repeat.max == Expression::kUnlimited) {
    return done < repeat.min && repeat.min - done > horizon ? 0 : done;
  }
  if (repeat.max - done <= horizon) return done;  // the upper limit may be reached
  if (done >= repeat.min) return repeat.min;      // only the upper limit remains, and it is far
  return repeat.min - done > horizon ? 0 : done;  // the lower limit is far, or near
}

const TokenMatcher::LocalMask& TokenMatcher::local_mask(FrameId local) {
  if (const auto found = local_masks_.find(local); found != local_masks_.end()) return found->second;
  count_masks(2);  // this one and the one that it is a part of
  LocalMask result;
  result.tokens = TokenMask(trie_->vocabulary().size());
  const SetId inside = automaton_.set_of({local});
  const size_t most_exits = trie_->n_nodes() / 16 + 16;
  walk(inside, 0, trie_->n_nodes(), 0, [&](size_t i, SetId state) {
    if (state == StackAutomaton::kDead) return;
    for (const TokenId id : trie_->tokens_at(i)) result.tokens.set(id);
    // No frame that can occur here has a lower id than the open one.
    const bool ends = automaton_.frames(state).front() == StackAutomaton::kOpen;
    if (ends && trie_->node(i).end > i + 1 && result.exits.size() <= most_exits) {
      result.exits.push_back(static_cast<uint32_t>(i));
    }
  });
  if (result.exits.size() > most_exits) result = {false, {}, {}};
  n_local_exits_ += result.exits.capacity();
  const LocalMask& kept = local_masks_.emplace(local, std::move(result)).first->second;
  count_masks(1);
  return kept;
}

void TokenMatcher::restrict_subtree(const Handle& at, size_t node, TokenMask& mask) {
  with_room([&] {
    const VocabularyTrie::Node& top = trie_->node(node);
    walk(at.state(), node + 1, top.end, top.depth, [&](size_t i, SetId state) {
      if (state != StackAutomaton::kDead) return;
      for (const TokenId id : trie_->tokens_under(i)) mask.clear(id);
    });
    return true;
  });
}

size_t TokenMatcher::bytes() const {
  const Lock lock(*this);
  return grammar_memory_.bytes() + mask_memory_.bytes() + automaton_.bytes();
}

}  // namespace mneme
