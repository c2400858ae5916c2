#pragma once

#include <memory>
#include <string>

#include "recall/sql/database.h"

namespace mneme::recall {

/// Connects to a PostgreSQL server, version 13 or later. Row-level security keeps tenants apart for every role that is
/// not a superuser. Writes are ordered by one advisory lock. A lost connection is made again, for about ten seconds, and
/// the transaction repeated unless it was committed. Throws Error(kIo).
std::unique_ptr<Database> open_postgres(const std::string& url);

}  // namespace mneme::recall
