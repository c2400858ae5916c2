#pragma once

#include <memory>
#include <string>

#include "recall/sql/database.h"

namespace mneme::recall {

struct SqliteOptions {
  uint64_t cache_bytes = uint64_t{64} << 20;  ///< Page cache of the connection.
  int busy_ms = 20'000;                       ///< How long to wait for another process's write.
  std::string vfs;                            ///< Name of the file layer; "" is the system's. For fault injection.
  bool create = true;                         ///< Make the file when it is missing.
  bool read_only = false;
  bool single_file = false;                   ///< A rollback journal in place of the write-ahead log: nothing stays beside.
};

/// Opens a file in write-ahead mode with full syncs, foreign pages zeroed on deletion (secure_delete) and cells checked
/// while reading. Throws Error(kNotFound, kIo, kCorruptData).
std::unique_ptr<Database> open_sqlite(const std::string& path, const SqliteOptions& options = {});

}  // namespace mneme::recall
