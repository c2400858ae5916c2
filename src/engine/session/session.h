#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "budget/ledger.h"
#include "engine/session/session_log.h"

namespace mneme {

/// What a session brings back.
struct SessionContent {
  std::vector<TokenId> tokens;  ///< All tokens of the text.
  std::unique_ptr<SequenceState>
      state;                      ///< Of the first state->n_tokens() of them, or null; the others are computed again.
  Json details = Json::object();  ///< What save() was given.
};

/// A conversation on disk: a file that is complete after each save, whatever happens to the process. A file of which
/// more than half is out of date is written anew beside its place and renamed. One process at a time has a session.
class Session {
 public:
  /// Opens a session or begins a new one. A file that cannot be written is used without saving; trouble() says why.
  /// Throws Error(kInvalidArgument) when another process has it.
  Session(std::string path, SessionIdentity identity, Ledger& ledger);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  /// Removes the file when nothing was ever saved.
  ~Session();

  /// What was saved last; call it once, before save(). `make_state` gives empty states. Of a damaged file it is what is
  /// intact, and trouble() says so. Throws Error: kInvalidArgument for a session of another model or policy,
  /// kCorruptData for a file that is no session, kContextOverflow, kOutOfBudget.
  SessionContent load(const std::function<std::unique_ptr<SequenceState>()>& make_state);

  /// Saves. When something is in the way (disk full, budget of the disk tier), the file stays as after the last
  /// successful save, false is returned and trouble() says why; the next call tries again.
  bool save(const SessionMoment& moment, SaveDepth depth);

  /// About the most that a session takes on disk whose state has state_bytes: a file that is rewritten when half of it
  /// is out of date, and its successor.
  static uint64_t most_bytes(uint64_t state_bytes);

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return log_ ? log_->bytes() : 0; }
  /// One line about what is lost or not being saved; empty when all is well.
  const std::string& trouble() const { return trouble_; }

 private:
  void rewrite(const SessionMoment& moment);

  std::string path_;
  SessionIdentity identity_;
  Ledger& ledger_;
  std::optional<SessionLog> log_;
  bool damaged_ = false;  ///< The file on disk is kept aside before anything is written.
  std::string trouble_;
};

}  // namespace mneme
