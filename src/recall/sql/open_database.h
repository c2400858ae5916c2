#pragma once

#include <memory>
#include <string>

#include "recall/sql/database.h"

namespace mneme::recall {

struct StoreOptions;

/// The database at `location`: "postgres://..." or "postgresql://...", else the path of an SQLite file, whose folder is
/// made when it is missing and `options.create`. Throws Error.
std::unique_ptr<Database> open_database(const std::string& location, const StoreOptions& options);

}  // namespace mneme::recall
