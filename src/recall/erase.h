#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "recall/store.h"

namespace mneme::recall {

struct EraseOptions {
  bool derived = false;  ///< Also texts made from the records, by their parents, and from these in turn.
  bool verify = false;   ///< Look for the bytes in all files afterwards.
  bool dry_run = false;  ///< Only say what would be erased.
};

struct Erasure {
  std::vector<std::string> ids;      ///< Erased now, or in a dry run what would be.
  std::vector<std::string> derived;  ///< Made from them and still there.
  std::vector<std::string> cubes;    ///< Files written by this store that held some of them; erased there too.
  std::vector<std::string> missing_cubes;  ///< Files written by this store that are not where they were.
  std::vector<std::string> files;       ///< Of KV segments and adapters, deleted with their records.
  std::vector<std::string> files_left;  ///< Such files that are not mneme's own, or that others point to; still there.

  // With verify:
  std::vector<std::string> scanned;  ///< Files that were read from end to end.
  size_t n_texts = 0;                ///< Texts and vectors that were looked for.
  size_t n_too_short = 0;            ///< Texts of fewer than six bytes, which cannot be looked for.
  size_t n_shared = 0;               ///< Pieces that other records say too; they stay.
  bool rewritten = false;            ///< The database was written anew, since a piece was still there.
  bool server_files_unseen = false;  ///< PostgreSQL: its files lie on the server and were not read.
};

/// Truly erases records: their text, names, tags, vectors and index entries, all versions in the log, and the same in
/// cubes that this store wrote. KV segments and adapters made from them are erased with them, files and all
/// (derived_files.h). Ids, versions and times of changes stay as a sign that something was there. Then the
/// database's log and free pages are cleaned (Database::scrub), and with `verify` all files are searched for what was
/// there; a piece that is left makes the database be written anew, and one that is still left then is an
/// Error(kCorruptData). Throws Error(kNotFound) when an id is unknown; then nothing is erased.
Erasure erase(Store& store, const Scope& scope, std::span<const std::string> ids, const EraseOptions& options = {});

/// The same for all of a user's records; the user's name goes too.
Erasure erase_user(Store& store, const Scope& scope, const EraseOptions& options = {});

/// Ids of records that expired before `time`.
std::vector<std::string> expired(Store& store, const Scope& scope, Time time);

}  // namespace mneme::recall
