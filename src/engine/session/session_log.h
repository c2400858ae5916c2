#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "budget/ledger.h"
#include "context/record_log.h"
#include "engine/session/session_index.h"

namespace mneme {

/// How much of a session one save writes.
enum class SaveDepth : uint8_t {
  kProgress,  ///< In the middle of an answer: sealed pages and tokens, at the mercy of the kernel's write-back.
  kComplete,  ///< The whole state, on the disk when the call returns.
};

/// What is saved: a state (or null) that has seen the first state->n_tokens() of the tokens, and details about the
/// text.
struct SessionMoment {
  const SequenceState* state = nullptr;
  std::span<const TokenId> tokens;
  const Json& details;
};

/// The file of a session, which knows what it holds and appends only what is new: pages sealed since, the rests of the
/// state, the tokens, and last a commit that makes them count. Its size is counted in the disk tier.
class SessionLog {
 public:
  /// Opens or creates the file and locks it. Throws Error as RecordLog does.
  SessionLog(const std::string& path, SessionIdentity identity, Ledger& ledger);

  /// Goes on behind the last commit of what was read from this file.
  void resume(const SessionIndex& index);
  /// Appends what is new. When it throws (Error kIo, kOutOfBudget), roll_back() restores the file as it was before.
  void append(const SessionMoment& moment, SaveDepth depth);
  void roll_back();
  /// See RecordLog::rename().
  void rename(const std::string& path) { log_.rename(path); }

  uint64_t bytes() const { return log_.bytes(); }
  /// Bytes of the file that the last commit needs.
  uint64_t live_bytes() const;

 private:
  struct Saved {
    uint64_t token_hash;
    uint64_t end;    ///< Offset behind its record.
    uint64_t bytes;  ///< Of its record.
  };
  using Blocks = std::map<std::pair<uint32_t, int64_t>, Saved>;  ///< By layer and position.

  void append_identity();
  int64_t append_state(const SessionMoment& moment, std::span<const uint64_t> chain, SaveDepth depth);
  void append_block(SessionRecord kind, uint32_t layer, int64_t position, uint64_t hash, int64_t end_page,
                    FunctionRef<void(StateWriter&)> content);
  bool append_rests(const SequenceState& state, int64_t n_tokens, uint64_t hash);
  void append_commit(const SessionMoment& moment, uint64_t hash, int64_t n_state);

  SessionIdentity identity_;
  RecordLog log_;
  Reservation disk_;
  Blocks pages_, rests_;
  std::vector<TokenId> tokens_;         ///< As of the last commit,
  int64_t n_state_ = 0;                 ///< as is this,
  uint64_t end_ = 0, next_number_ = 0;  ///< and behind it.
};

}  // namespace mneme
