#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/philox.h"

struct sqlite3_vfs;

namespace mneme::recall {

/// A disk in memory for SQLite that fails on demand; for tests. What was written but not synced is lost, kept or torn when
/// the power goes.
class FaultDisk {
 public:
  /// Registers the file layer under `name`, for SqliteOptions::vfs. One disk a name; not thread-safe.
  explicit FaultDisk(std::string name);
  FaultDisk(const FaultDisk&) = delete;
  FaultDisk& operator=(const FaultDisk&) = delete;
  ~FaultDisk();

  const std::string& name() const { return name_; }
  /// The power goes after this many more writes and syncs; everything fails from then on.
  void fail_after(uint64_t operations) { left_ = operations; }
  /// Writes fail from the given one on as a full disk does, after a part of them was written. 0: no more.
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }
  /// The power comes back: each write since the last sync of its file is there, is not, or is there in part.
  void restart(PhiloxStream& random);
  uint64_t operations() const { return operations_; }

 private:
  friend struct FaultFile;
  struct Write {
    uint64_t offset;
    std::string bytes;
    bool truncates = false;  ///< The file was cut at `offset`.
  };
  struct Content {
    std::string current, durable;
    std::vector<Write> unsynced;
  };
  /// False when the operation must fail.
  bool may_operate();

  std::string name_;
  std::unique_ptr<sqlite3_vfs> vfs_;
  std::map<std::string, std::shared_ptr<Content>> files_;
  uint64_t left_ = ~uint64_t{0}, operations_ = 0, capacity_ = 0;
};

}  // namespace mneme::recall
