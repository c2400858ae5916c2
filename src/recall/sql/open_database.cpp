#include "recall/sql/open_database.h"

#include <filesystem>

#include "base/error.h"
#include "recall/sql/postgres_database.h"
#include "recall/sql/sqlite_database.h"
#include "recall/store.h"

namespace mneme::recall {

std::unique_ptr<Database> open_database(const std::string& location, const StoreOptions& options) {
  if (location.starts_with("postgres://") || location.starts_with("postgresql://")) {
    return open_postgres(location);
  }
  const std::filesystem::path folder = std::filesystem::path(location).parent_path();
  std::error_code error;
  if (options.create && !folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorCode::kIo, "[open store] {}: {}", folder.string(), error.message());
  SqliteOptions sqlite;
  sqlite.cache_bytes = options.cache_bytes;
  sqlite.create = options.create;
  sqlite.vfs = options.sqlite_vfs;
  return open_sqlite(location, sqlite);
}

}  // namespace mneme::recall
