#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "recall/kept/scope_index.h"
#include "recall/search/filter.h"
#include "recall/search/vectors.h"

namespace mneme::recall {

class Store;

/// What one search for vectors cost.
struct VectorSearchCost {
  std::string way;                ///< "scan" of the tables, or the kind of the index: "exact", "hnsw", "spann".
  std::string why_scan;           ///< When there was no index, or it did not do.
  uint64_t vectors = 0;           ///< In the index; of a scan those that passed the filter.
  uint64_t compared = 0;          ///< Distances computed in the index.
  uint64_t lists = 0, bytes = 0;  ///< Read from disk by a SPANN index.
  uint64_t read = 0;              ///< Vectors read from the database and compared exactly.
  uint64_t rounds = 0;            ///< Searches in the index, each wider, until enough passed the filter.
  uint64_t caught_up = 0;         ///< Changed records that the index took in first.
  bool built = false;             ///< The index was made for this search.
  double ms = 0;
};

/// The vectors of a store, searched with one index a user where there are enough to be worth one. Indexes lie beside an
/// SQLite file in NAME.index, for PostgreSQL in $XDG_CACHE_HOME/mneme/recall, and may be deleted at any time. Hits are
/// always read and compared from the database, inside the scope and under the filter that was asked for, so an index
/// can at worst overlook something.
class VectorSearch {
 public:
  explicit VectorSearch(Store& store);
  ~VectorSearch();

  /// The `k` records of a scope closest to `query` (of length 1) that satisfy `condition` on row `r` of table record,
  /// closest first. Inside a read transaction. Makes an index or brings it up to date first, unless that would take
  /// long (more than StoreOptions::index_in_search vectors); then the tables are scanned.
  std::vector<VectorMatch> match(int64_t scope, std::span<const float> query, const SqlCondition& condition, size_t k,
                                 VectorSearchCost& cost);

  /// Makes the index of a user, or brings it up to date, however long that takes. Returns its kind, or why there is
  /// none.
  std::string refresh(const Scope& scope);
  /// After an erasure was committed: takes the last bytes of what was erased out of the index of a scope. With `all`
  /// nothing of the scope is kept.
  void purge(const Scope& scope, int64_t number, bool all);
  /// Compares all kept indexes with the tables; inside a read transaction over all tenants. Throws Error(kCorruptData).
  void check();

  /// All files of indexes.
  std::vector<std::string> files() const { return index_files_in(folder_); }

 private:
  struct Open {
    std::unique_ptr<ScopeIndex> index;
    uint64_t last_use = 0;
  };
  enum class Patience { kSearch, kAny };

  /// The index of a scope, current; null when there is none, with the reason in `cost`.
  ScopeIndex* current(int64_t scope, Patience patience, VectorSearchCost& cost);
  ScopeIndex* try_current(int64_t scope, Patience patience, VectorSearchCost& cost);
  std::unique_ptr<ScopeIndex> make(int64_t scope);
  IndexFiles files_of(int64_t scope) const;
  /// Throws an index away, and what is kept of it when it is damaged.
  void discard(int64_t scope, const Error& why);
  /// False when too few of the index's proposals pass the condition.
  bool match_index(ScopeIndex& index, int64_t scope, std::span<const float> query, const SqlCondition& condition,
                   size_t k, std::vector<VectorMatch>& matches, VectorSearchCost& cost);
  /// Appends those of `records` that satisfy the condition, with their cosines.
  void compare(int64_t scope, std::span<const float> query, const SqlCondition& condition,
               std::span<const ann::Hit> records, std::vector<VectorMatch>& matches, VectorSearchCost& cost);

  Store& store_;
  std::string folder_;  ///< Empty: no indexes.
  std::string name_;    ///< Of the store, for the state files.
  uint64_t memory_;
  std::unique_ptr<Ledger> own_ledger_;  ///< When the store has none.
  Ledger* ledger_;
  std::map<int64_t, Open> open_;
  uint64_t clock_ = 0;
};

}  // namespace mneme::recall
