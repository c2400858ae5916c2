#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <queue>
#include <span>
#include <vector>

#include "budget/ledger.h"
#include "engine/grammar/grammar.h"

namespace mneme {

/// Runs a grammar over bytes: a nondeterministic pushdown automaton whose sets of stacks are made into the states of a
/// deterministic automaton as they are met.
///
/// All stacks of a state are one graph (a graph-structured stack, Tomita 1985). A frame is a node of the grammar with
/// the set of frames below it: one frame per caller of its procedure, so stacks that agree at the top share it. At one
/// place in the text each procedure is entered at most once, for all its callers together, which keeps the work
/// polynomial even for grammars where the number of separate stacks would double with every bracket.
///
/// Frames and sets of frames are immutable and exist once each (hash consing). A state is a set of frames that wait for
/// a byte; its number identifies it, and a transition is worked out once and then looked up.
///
/// Invariants:
///  1. the frames of a set ascend and differ;
///  2. the top frames (those in states) stand at kCharacters nodes, all others at what follows a call or at a
///  repetition;
///  3. every stack can be completed by some text, since the grammar holds no parts without an end.
/// One thread at a time.
class StackAutomaton {
 public:
  using FrameId = uint32_t;
  /// A set of frames: a state, or what lies below a frame.
  using SetId = uint32_t;

  static constexpr FrameId kBottom = 0;  ///< in a state: the text so far is complete
  /// Stands for an unknown rest of the stack; in a state: the known part has ended.
  static constexpr FrameId kOpen = 1;
  static constexpr SetId kDead = 0;  ///< the empty set

  /// Largest set; grammars that need more readings of a text at once are refused as too ambiguous.
  static constexpr size_t kMaxFrames = size_t{1} << 15;
  /// Steps that may be worked out between two calls of limit_work(): a fraction of a second.
  static constexpr uint64_t kDefaultWork = uint64_t{1} << 23;
  static constexpr size_t kMaxBytes = size_t{192} << 20;

  struct Frame {
    Grammar::NodeId node = Grammar::kEnd;
    uint32_t value =
        0;  ///< at the top: state of the byte automaton; at a repetition: times done when this one has ended
    SetId below = kDead;
  };

  /// `memory`, grown and shrunk with bytes(), counts them in a ledger; without one they are not counted.
  explicit StackAutomaton(std::shared_ptr<const Grammar> grammar, Reservation memory = {});

  SetId start() const { return start_; }
  /// Throws Error(kUnsupported) when a set would pass kMaxFrames, all bytes kMaxBytes, or the work since limit_work()
  /// its limit; Error(kOutOfBudget) when the ledger has no room.
  SetId step(SetId state, unsigned char byte);
  /// The set of exactly these frames, in any order.
  SetId set_of(std::vector<FrameId> frames);
  /// The state after the frames of `below` were told that what they wait for has ended.
  SetId resume(SetId below);

  bool is_complete(SetId state) const { return !frames(state).empty() && frames(state).front() == kBottom; }
  std::span<const FrameId> frames(SetId set) const { return sets_[set].frames; }
  const Frame& frame(FrameId id) const { return frames_[id]; }
  FrameId push(Grammar::NodeId node, uint32_t value, SetId below);
  const Grammar& grammar() const { return *grammar_; }

  /// Keeps a set through collect(). Calls are counted.
  void retain(SetId set) { ++sets_[set].n_references; }
  void release(SetId set) { --sets_[set].n_references; }
  /// Drops everything that no retained set needs; ids of retained sets stay, all other ids become invalid.
  void collect();
  /// Bytes held; collect() reduces them.
  size_t bytes() const;
  /// Sets the number of steps that may be worked out from now on.
  void limit_work(uint64_t steps = kDefaultWork) { work_left_ = steps; }

 private:
  struct Set {
    std::vector<FrameId> frames;
    std::unique_ptr<SetId[]> next;  ///< by class of byte; null until a transition is asked for
    uint32_t n_references = 0;
    bool used = true;
  };
  static constexpr uint32_t kUnknown = std::numeric_limits<uint32_t>::max();

  SetId work_out(SetId state, unsigned char byte);

  void begin_closure();
  void continue_at(Grammar::NodeId node, uint32_t value, SetId below);
  void end_of(SetId below);
  void expand(Grammar::NodeId node, uint32_t value, SetId below, bool entered);
  void arrive(Grammar::NodeId node, SetId below, bool entered);
  void call(Grammar::ProcedureId procedure, std::span<const FrameId> callers);
  void call_then(Grammar::ProcedureId procedure, Grammar::NodeId next, SetId below);
  void enter(Grammar::ProcedureId procedure);
  SetId end_closure();

  uint32_t next_epoch();
  void spend(uint64_t steps);
  void count_bytes();
  void index_frame(FrameId id);
  void index_set(SetId id);

  std::shared_ptr<const Grammar> grammar_;
  std::array<uint8_t, 256> class_of_byte_{};
  size_t n_classes_;

  std::vector<Frame> frames_;
  std::vector<uint32_t> frame_table_;  ///< open addressing; kUnknown: free
  std::vector<Set> sets_;
  std::vector<uint32_t> set_table_;
  std::vector<SetId> free_sets_;
  size_t n_set_entries_ = 0;
  size_t n_rows_ = 0;  ///< sets with transitions
  SetId start_ = kDead;
  uint64_t work_left_ = kDefaultWork;
  Reservation memory_;
  size_t counted_bytes_ = 0;  ///< what bytes() may reach before it is counted anew

  // The closure that is being worked out: everything reached without reading a byte.
  uint32_t epoch_ = 0;
  std::vector<uint32_t> continued_in_;         ///< by frame: epoch in which it went on
  std::vector<uint32_t> called_in_;            ///< by procedure: epoch in which it was called
  std::vector<uint32_t> expanded_in_;          ///< by node: epoch in which it was expanded inside an entered procedure
  std::vector<FrameId> going_on_;              ///< frames that still have to go on
  std::vector<std::vector<FrameId>> callers_;  ///< by procedure
  size_t caller_capacity_ = 0;
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> to_enter_;  ///< ranks
  std::vector<Grammar::NodeId> inside_;  ///< nodes of the procedure being entered
  std::vector<FrameId> reached_;
};

}  // namespace mneme
