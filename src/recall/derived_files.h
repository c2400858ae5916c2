#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "recall/store.h"

namespace mneme::recall {

/// The files that erased records point to. A file is deleted with its record when all of this holds:
///
///   - it is a KV segment, or an adapter that was made from records (it has parents): it holds what the text said;
///   - it lies in a folder that is mneme's own: $XDG_DATA_HOME/mneme (~/.local/share/mneme) but for the stores in it,
///   or
///     `payloads` beside the store, where imported cubes leave theirs; links are followed first;
///   - no other living record of the store points to it.
///
/// Any other file stays and is named. What earlier versions of a record pointed to counts too.
class DerivedFiles {
 public:
  DerivedFiles(Store& store, std::string tenant) : store_(store), tenant_(std::move(tenant)) {}

  /// Notes the files of a record, before it is erased. Inside a transaction.
  void add(int64_t number);
  /// Deletes them, or in a dry run says which it would, after all records were erased. Names of what went go to `gone`,
  /// of what is still there to `left`. Throws Error(kIo).
  void remove(bool dry_run, std::vector<std::string>& gone, std::vector<std::string>& left) const;

 private:
  bool is_own(const std::string& path) const;

  Store& store_;
  std::string tenant_;  ///< Of the transaction.
  std::set<std::string> made_, given_;  ///< Derived from records, and others.
  std::set<int64_t> records_;
};

}  // namespace mneme::recall
