#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "budget/ledger.h"
#include "recall/index/vector_index.h"
#include "recall/kept/index_files.h"
#include "recall/sql/database.h"

namespace mneme::recall {

/// The vector index of one scope (a tenant's user), kept beside the store. The database is the truth: an index knows up
/// to which event it is current, takes in what came later from the tables before each search, and may be lost at any
/// time. It only proposes records; their vectors are compared again, from the database.
///
/// Exact and HNSW indexes are read into RAM by as many processes as like, from a file that never changes; one of them
/// writes the next file when enough has changed. A SPANN index lives on disk and has one process at a time.
///
/// All functions that take a Database run inside a transaction that may see the scope. They throw Error; then the index
/// is to be thrown away.
class ScopeIndex {
 public:
  /// `memory`: most bytes of RAM for the index. `kind`: in place of the one that fits size and memory.
  ScopeIndex(Ledger& ledger, IndexFiles files, std::string model, uint32_t dimension, uint64_t memory,
             std::optional<ann::IndexKind> kind = {});
  ~ScopeIndex();

  enum class Load {
    kReady,
    kMissing,  ///< None is kept, or none that is of use: of another model, outgrown, of a state that is no more.
    kInUse,    ///< Another process has it.
    kNoRoom,   ///< It does not fit into `memory`.
  };
  /// Opens what is kept. Throws Error(kCorruptData) when it is damaged.
  Load load(Database& db);
  /// Makes the index that fits size and memory from all vectors of the scope, and keeps it. Throws Error(kOutOfBudget).
  void build(Database& db);
  /// False when another process has replaced what this one works on (SPANN).
  bool is_current_file() const;

  /// Records that have changed since the index was current.
  uint64_t lag(Database& db) const;
  /// Takes in what has changed; returns the number of records. Vectors of erased records leave what is kept at once,
  /// other changes when they are many enough.
  uint64_t catch_up(Database& db);
  /// Writes what is kept so that no byte of a removed vector is in it, even when little has changed. False when another
  /// process keeps it from that.
  bool purge();

  /// Writes what has changed since the file was written.
  void keep() {
    if (n_unsaved_ > 0) publish(0);
  }

  size_t size() const { return index_->size(); }
  ann::IndexKind kind() const { return kind_; }
  /// About `n` records whose vectors are closest to `query`, closest first.
  ann::SearchResult search(std::span<const float> query, size_t n) const;
  /// Checks the index itself, and that it holds exactly the vectors of the scope. Throws Error(kCorruptData).
  void verify(Database& db);

 private:
  IndexCursor newest(Database& db) const;
  bool publish(int wait_ms);
  ann::SpannOptions spann_options() const;
  /// Becomes the one process that has a SPANN folder.
  bool own(const std::string& folder);

  Ledger& ledger_;
  IndexFiles files_;
  std::string model_;
  uint32_t dimension_;
  uint64_t memory_;
  std::optional<ann::IndexKind> wanted_;
  ann::IndexKind kind_ = ann::IndexKind::kExact;
  std::string name_;               ///< Of the file in the folder; empty before the first.
  std::optional<FileLock> owner_;  ///< Of a SPANN folder.
  std::unique_ptr<ann::VectorIndex> index_;
  IndexCursor cursor_;
  uint64_t n_unsaved_ = 0;  ///< Changed records since the file was written.
};

}  // namespace mneme::recall
