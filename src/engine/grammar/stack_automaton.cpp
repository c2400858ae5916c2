#include "engine/grammar/stack_automaton.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mneme {
namespace {

using Kind = Grammar::Kind;

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15ull + (hash << 6) + (hash >> 2);
  hash *= 0xFF51AFD7ED558CCDull;
  return hash ^ (hash >> 33);
}

uint64_t hash_of(const StackAutomaton::Frame& f) {
  return mix(mix(mix(0, f.node), f.value), f.below);
}

uint64_t hash_of(const std::vector<uint32_t>& frames) {
  uint64_t hash = frames.size();
  for (const uint32_t f : frames) hash = mix(hash, f);
  return hash;
}

/// Makes room in an open-addressing table that would be more than half full; true when it is empty now and must be
/// refilled.
bool grow(std::vector<uint32_t>& table, size_t n_entries, uint32_t free) {
  if (table.size() > 2 * n_entries + 2) return false;
  size_t size = 64;
  while (size < 4 * (n_entries + 1)) size *= 2;
  table.assign(size, free);
  return true;
}

}  // namespace

StackAutomaton::StackAutomaton(std::shared_ptr<const Grammar> grammar, Reservation memory)
    : grammar_(std::move(grammar)),
      n_classes_(grammar_->characters().classify_bytes(class_of_byte_)),
      frames_(2),
      memory_(std::move(memory)),
      continued_in_(2),
      called_in_(grammar_->n_procedures()),
      expanded_in_(grammar_->n_nodes()),
      callers_(grammar_->n_procedures()) {
  set_of({});  // kDead
  begin_closure();
  if (grammar_->root_is_nullable()) reached_.push_back(kBottom);
  call(grammar_->root(), std::array{kBottom});
  start_ = end_closure();
  retain(kDead);
  retain(start_);
}

StackAutomaton::FrameId StackAutomaton::push(Grammar::NodeId node, uint32_t value, SetId below) {
  if (grow(frame_table_, frames_.size(), kUnknown)) {
    for (FrameId id = 2; id < frames_.size(); ++id) index_frame(id);
  }
  const Frame wanted{node, value, below};
  const size_t mask = frame_table_.size() - 1;
  for (size_t slot = hash_of(wanted) & mask;; slot = (slot + 1) & mask) {
    const uint32_t id = frame_table_[slot];
    if (id == kUnknown) {
      frame_table_[slot] = static_cast<uint32_t>(frames_.size());
      frames_.push_back(wanted);
      continued_in_.push_back(0);
      return frame_table_[slot];
    }
    const Frame& f = frames_[id];
    if (f.node == node && f.value == value && f.below == below) return id;
  }
}

void StackAutomaton::index_frame(FrameId id) {
  const size_t mask = frame_table_.size() - 1;
  size_t slot = hash_of(frames_[id]) & mask;
  while (frame_table_[slot] != kUnknown) slot = (slot + 1) & mask;
  frame_table_[slot] = id;
}

StackAutomaton::SetId StackAutomaton::set_of(std::vector<FrameId> frames) {
  std::sort(frames.begin(), frames.end());
  frames.erase(std::unique(frames.begin(), frames.end()), frames.end());
  if (grow(set_table_, sets_.size(), kUnknown)) {
    for (SetId id = 0; id < sets_.size(); ++id) {
      if (sets_[id].used) index_set(id);
    }
  }
  const size_t mask = set_table_.size() - 1;
  size_t slot = hash_of(frames) & mask;
  for (; set_table_[slot] != kUnknown; slot = (slot + 1) & mask) {
    if (sets_[set_table_[slot]].frames == frames) return set_table_[slot];
  }
  auto id = static_cast<SetId>(sets_.size());
  if (free_sets_.empty()) {
    sets_.emplace_back();
  } else {
    id = free_sets_.back();
    free_sets_.pop_back();
  }
  n_set_entries_ += frames.size();
  sets_[id] = {std::move(frames), nullptr, 0, true};
  set_table_[slot] = id;
  return id;
}

void StackAutomaton::index_set(SetId id) {
  const size_t mask = set_table_.size() - 1;
  size_t slot = hash_of(sets_[id].frames) & mask;
  while (set_table_[slot] != kUnknown) slot = (slot + 1) & mask;
  set_table_[slot] = id;
}

StackAutomaton::SetId StackAutomaton::step(SetId state, unsigned char byte) {
  std::unique_ptr<SetId[]>& next = sets_[state].next;
  if (!next) {
    next = std::make_unique_for_overwrite<SetId[]>(n_classes_);
    std::fill_n(next.get(), n_classes_, kUnknown);
    ++n_rows_;
  }
  const SetId known = next[class_of_byte_[byte]];
  return known != kUnknown ? known : work_out(state, byte);
}

StackAutomaton::SetId StackAutomaton::work_out(SetId state, unsigned char byte) {
  begin_closure();
  const std::vector<FrameId> tops = sets_[state].frames;
  spend(tops.size());
  const ByteAutomata& characters = grammar_->characters();
  for (const FrameId id : tops) {
    if (id == kBottom || id == kOpen) continue;
    const Frame top = frames_[id];
    const ByteAutomata::State next = characters.step(top.value, byte);
    if (next == ByteAutomata::kRejected) continue;
    if (next == ByteAutomata::kComplete) {
      continue_at(grammar_->node(top.node).next, 0, top.below);
    } else {
      reached_.push_back(push(top.node, next, top.below));
    }
  }
  const SetId result = end_closure();
  sets_[state].next[class_of_byte_[byte]] = result;
  return result;
}

StackAutomaton::SetId StackAutomaton::resume(SetId below) {
  begin_closure();
  end_of(below);
  return end_closure();
}

// A closure has two phases.
//
// First go on the frames that have read something, and those below them whose part has ended by that. What they call is
// noted, with the frame that waits for it.
//
// Then the noted procedures are entered, by rank, so that all callers of one are known before it is entered. An entered
// procedure that ends at once has read nothing; its callers do not wait for that, because a call that can be skipped is
// skipped when it is made. So entering never makes a frame below go on, and the first phase is over for good.

uint32_t StackAutomaton::next_epoch() {
  if (++epoch_ == 0) {
    for (auto* marks : {&continued_in_, &called_in_, &expanded_in_}) std::fill(marks->begin(), marks->end(), 0);
    epoch_ = 1;
  }
  return epoch_;
}

void StackAutomaton::begin_closure() {
  next_epoch();
  going_on_.clear();
  to_enter_ = {};
  reached_.clear();
}

/// Goes on at a node of a procedure that has read something.
void StackAutomaton::continue_at(Grammar::NodeId node, uint32_t value, SetId below) {
  if (node == Grammar::kEnd) return end_of(below);
  if (grammar_->node(node).kind == Kind::kCharacters) return arrive(node, below, false);
  const FrameId here = push(node, value, below);
  if (continued_in_[here] == epoch_) return;
  continued_in_[here] = epoch_;
  going_on_.push_back(here);
}

/// A procedure that has read something has ended: its callers go on.
void StackAutomaton::end_of(SetId below) {
  spend(sets_[below].frames.size());
  for (const FrameId caller : sets_[below].frames) {
    if (caller == kBottom || caller == kOpen) {
      reached_.push_back(caller);
    } else if (continued_in_[caller] != epoch_) {
      continued_in_[caller] = epoch_;
      going_on_.push_back(caller);
    }
  }
}

/// Reaches `node` with `below`: in a procedure that was entered in this closure, or in one that has read something.
void StackAutomaton::arrive(Grammar::NodeId node, SetId below, bool entered) {
  if (node != Grammar::kEnd && grammar_->node(node).kind == Kind::kCharacters) {
    reached_.push_back(push(node, grammar_->node(node).target, below));
  } else if (!entered) {
    continue_at(node, 0, below);
  } else if (node != Grammar::kEnd && expanded_in_[node] != epoch_) {
    expanded_in_[node] = epoch_;
    inside_.push_back(node);
  }
}

void StackAutomaton::expand(Grammar::NodeId id, uint32_t value, SetId below, bool entered) {
  const Grammar::Node& node = grammar_->node(id);
  switch (node.kind) {
    case Kind::kEnd:
    case Kind::kCharacters:  // A frame below the top that waits for a call stands here: what follows the call.
      return arrive(id, below, entered);
    case Kind::kAlternatives:
      spend(node.max);
      for (uint32_t i = 0; i < node.max; ++i) arrive(grammar_->branch(node.target + i), below, entered);
      return;
    case Kind::kCall:
      call_then(node.target, node.next, below);
      if (node.skippable) arrive(node.next, below, entered);
      return;
    case Kind::kRepeat: {
      if (value >= node.min) arrive(node.next, below, entered);
      if (value >= node.max) return;
      if (value + 1 == node.max) return call_then(node.target, node.next, below);
      // Without an upper limit the counter need not pass the lower one.
      const uint32_t after = node.max == Expression::kUnlimited ? std::min(value + 1, node.min) : value + 1;
      const FrameId loop = push(id, after, below);
      return call(node.target, std::span(&loop, 1));
    }
  }
}

/// Notes that `procedure` is called; `callers` wait for its end.
void StackAutomaton::call(Grammar::ProcedureId procedure, std::span<const FrameId> callers) {
  std::vector<FrameId>& all = callers_[procedure];
  if (called_in_[procedure] != epoch_) {
    called_in_[procedure] = epoch_;
    all.clear();
    to_enter_.push(grammar_->rank(procedure));
  }
  spend(callers.size());
  caller_capacity_ -= all.capacity();
  all.insert(all.end(), callers.begin(), callers.end());
  caller_capacity_ += all.capacity();
}

/// Calls `procedure` and goes on at `next` after it. At the end of a procedure its own callers wait instead, so lists
/// made by right recursion stay flat.
void StackAutomaton::call_then(Grammar::ProcedureId procedure, Grammar::NodeId next, SetId below) {
  if (next == Grammar::kEnd) {
    call(procedure, sets_[below].frames);
  } else {
    const FrameId waiting = push(next, 0, below);
    call(procedure, std::span(&waiting, 1));
  }
}

void StackAutomaton::enter(Grammar::ProcedureId procedure) {
  const SetId below = set_of(callers_[procedure]);
  if (sets_[below].frames.size() > kMaxFrames) {
    fail(ErrorCode::kUnsupported,
         "[match grammar] expected at most {} callers of one rule at once, found more: the grammar is "
         "too ambiguous",
         kMaxFrames);
  }
  inside_.clear();
  arrive(grammar_->start_of(procedure), below, true);
  while (!inside_.empty()) {
    const Grammar::NodeId node = inside_.back();
    inside_.pop_back();
    spend(1);
    expand(node, 0, below, true);
  }
}

StackAutomaton::SetId StackAutomaton::end_closure() {
  while (!going_on_.empty()) {
    const FrameId id = going_on_.back();
    going_on_.pop_back();
    spend(1);
    const Frame f = frames_[id];
    expand(f.node, f.value, f.below, false);
  }
  while (!to_enter_.empty()) {
    const uint32_t rank = to_enter_.top();
    to_enter_.pop();
    enter(grammar_->procedure_of_rank(rank));
  }
  std::sort(reached_.begin(), reached_.end());
  reached_.erase(std::unique(reached_.begin(), reached_.end()), reached_.end());
  if (reached_.size() > kMaxFrames) {
    fail(ErrorCode::kUnsupported,
         "[match grammar] expected at most {} readings of the text at once, found {}: the grammar is too "
         "ambiguous",
         kMaxFrames, reached_.size());
  }
  return set_of(reached_);
}

void StackAutomaton::spend(uint64_t steps) {
  if (steps > work_left_) {
    fail(ErrorCode::kUnsupported, "[match grammar] the grammar needs too much work for one token: it is too ambiguous");
  }
  work_left_ -= steps;
  if (bytes() > counted_bytes_) count_bytes();
}

/// Counts ahead, so that it seldom has to.
void StackAutomaton::count_bytes() {
  constexpr size_t kStep = size_t{64} << 10;
  const size_t ahead = bytes() + kStep;
  if (ahead > kMaxBytes) {
    fail(ErrorCode::kUnsupported,
         "[match grammar] the grammar needs more than {} bytes for one token: it is too ambiguous", kMaxBytes);
  }
  memory_.resize(ahead);
  counted_bytes_ = ahead;
}

void StackAutomaton::collect() {
  std::vector<bool> frame_needed(frames_.size(), false), set_needed(sets_.size(), false);
  frame_needed[kBottom] = frame_needed[kOpen] = true;
  std::vector<SetId> pending;
  const auto need = [&](SetId set) {
    if (set_needed[set]) return;
    set_needed[set] = true;
    pending.push_back(set);
  };
  need(kDead);
  for (SetId id = 0; id < sets_.size(); ++id) {
    if (sets_[id].n_references > 0) need(id);
  }
  while (!pending.empty()) {
    const SetId set = pending.back();
    pending.pop_back();
    for (const FrameId id : sets_[set].frames) {
      if (frame_needed[id]) continue;
      frame_needed[id] = true;
      need(frames_[id].below);
    }
  }
  // New numbers keep the order, so sets stay sorted.
  std::vector<FrameId> new_id(frames_.size(), 0);
  size_t n = 0;
  for (FrameId id = 0; id < frames_.size(); ++id) {
    if (!frame_needed[id]) continue;
    new_id[id] = static_cast<FrameId>(n);
    frames_[n++] = frames_[id];
  }
  frames_.resize(n);
  frames_.shrink_to_fit();
  continued_in_.assign(n, 0);
  frame_table_.clear();
  n_set_entries_ = 0;
  free_sets_.clear();
  for (SetId id = 0; id < sets_.size(); ++id) {
    Set& s = sets_[id];
    s.next.reset();
    if (set_needed[id]) {
      for (FrameId& f : s.frames) f = new_id[f];
      n_set_entries_ += s.frames.size();
    } else {
      s = {{}, nullptr, 0, false};
    }
  }
  while (!sets_.back().used) sets_.pop_back();  // kDead stays
  sets_.shrink_to_fit();
  for (SetId id = 0; id < sets_.size(); ++id) {
    if (!sets_[id].used) free_sets_.push_back(id);
  }
  n_rows_ = 0;
  set_table_.clear();
  for (std::vector<FrameId>& callers : callers_) callers = {};
  caller_capacity_ = 0;
  counted_bytes_ = 0;
  memory_.resize(bytes());
}

size_t StackAutomaton::bytes() const {
  constexpr size_t kBlock = 16;  // what the allocator adds to a block
  const size_t marks = (called_in_.size() + expanded_in_.size() + continued_in_.capacity()) * sizeof(uint32_t) +
                       callers_.size() * sizeof callers_[0];
  return marks + frames_.capacity() * sizeof(Frame) + (frame_table_.size() + set_table_.size()) * sizeof(uint32_t) +
         sets_.capacity() * (sizeof(Set) + kBlock) + (n_set_entries_ + caller_capacity_) * sizeof(FrameId) +
         n_rows_ * (n_classes_ * sizeof(SetId) + kBlock);
}

}  // namespace mneme
