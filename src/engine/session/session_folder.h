#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/session/session_index.h"

namespace mneme {

/// The folder of sessions: $XDG_DATA_HOME/mneme/sessions, else ~/.local/share/mneme/sessions. Throws Error(kNotFound)
/// when neither is set.
std::string default_session_folder();

/// What a person wants to know of a session.
struct SessionSummary {
  std::string name;
  uint64_t bytes = 0;
  int64_t changed = 0;  ///< Seconds since 1970.
  SessionIdentity identity;
  size_t n_tokens = 0;  ///< Of the text;
  int64_t n_state = 0;  ///< of these the state is saved.
  Json details = Json::object();
  std::string problem;  ///< Why it cannot be used, or what is damaged; empty when all is well.
};

/// Sessions as files NAME.session in one folder.
class SessionFolder {
 public:
  explicit SessionFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  /// The file of a session. Throws Error(kInvalidArgument) for a name that is not 1 to 64 of A-Z a-z 0-9 . _ - or that
  /// begins with a dot.
  std::string file_of(const std::string& name) const;
  /// The same, after making the folder where it is missing.
  std::string make_file_of(const std::string& name) const;

  /// All sessions by name; those that cannot be read are there with their problem.
  std::vector<SessionSummary> list() const;
  /// One session, with all of its blocks verified when `verify`. Throws Error(kNotFound).
  SessionSummary summary(const std::string& name, bool verify) const;
  /// Copies a session, verified, to a file that appears complete or not at all. Throws Error(kCorruptData) for a
  /// damaged one.
  void export_to(const std::string& name, const std::string& file) const;
  /// Takes a file, verified, as a new session. Throws Error, also when there is one of that name.
  void import_from(const std::string& file, const std::string& name) const;
  /// Removes a session and what was kept of it when it was damaged. Throws Error(kNotFound), or kInvalidArgument while
  /// another process has it.
  void remove(const std::string& name) const;

 private:
  std::string path_;
};

}  // namespace mneme
