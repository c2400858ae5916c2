#pragma once

#include <optional>
#include <string>

#include "base/function_ref.h"
#include "recall/import/import_formats.h"
#include "recall/store.h"

namespace mneme::recall {

struct ImportOptions {
  Scope scope;
  bool keep_users = false;             ///< See ImportSource.
  std::optional<ImportFormat> format;  ///< Default: guessed for each file.
};

struct ImportReport {
  size_t files = 0, added = 0;
  size_t known = 0;    ///< Records that were there already.
  size_t skipped = 0;  ///< System messages and empty ones.
};

/// Stores what a file holds, or all .md, .txt, .jsonl and .json files of a folder and the folders in it. A file is stored
/// as a whole or not at all, so an import that failed can be repeated, and repeating one that did not adds nothing.
/// `each(file)` is called before each file. Throws Error.
ImportReport import_path(Store& store, const std::string& path, const ImportOptions& options,
                         FunctionRef<void(const std::string&)> each);

}  // namespace mneme::recall
