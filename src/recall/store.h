#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "budget/ledger.h"
#include "recall/embedder.h"
#include "recall/record.h"
#include "recall/search/terms.h"
#include "recall/series.h"
#include "recall/sql/database.h"

namespace mneme::recall {

class VectorSearch;

struct StoreOptions {
  bool create = true;                         ///< Make the store when it is missing.
  uint64_t cache_bytes = uint64_t{64} << 20;  ///< Page cache of SQLite.
  Ledger* ledger = nullptr;                   ///< Counts cache and indexes, when given; outlives the store.
  Embedder* embedder = nullptr;               ///< Makes vectors of what is added; none: search by words alone.
  std::string actor = "mneme";                ///< Who makes the changes, for the log.
  std::function<Time()> clock;                ///< Default: now().
  std::string sqlite_vfs;                     ///< File layer of SQLite, for fault injection; then no index is kept.
  uint64_t index_bytes = uint64_t{1} << 30;   ///< Most RAM for vector indexes.
  uint64_t index_from = 2048;                 ///< Records of a user from which on an index is made.
  uint64_t index_in_search = 20'000;          ///< Most vectors that a search takes into an index before it begins.
  std::string index_kind;                     ///< exact, hnsw or spann; default: what fits size and memory.
  std::string index_folder;                   ///< Default: beside the store (kept/vector_search.h).
};

/// What became of a record that was added.
struct Added {
  std::string id;
  bool is_new = true;  ///< False: the same was known already, under this id.
};

/// Long-term memory: records of many tenants and users in SQLite (a path) or PostgreSQL ("postgres://...").
///
/// The log of events is the truth. An event holds a whole version of a record; the tables that are searched follow from
/// the newest version of each and change in the same transaction. Nothing changes a record but an event, so any past
/// state can be read (history.h); only erase.h takes content out of the log. Counters of use are statistics and not
/// logged.
///
/// When a call returns, its change is durable. Not thread-safe: one Store a thread, as many as wanted on one database, in
/// many processes. All functions throw Error.
class Store {
 public:
  /// Opens or makes a store and migrates it. Throws Error(kNotFound, kCorruptData, kUnsupported, kIo).
  static std::unique_ptr<Store> open(const std::string& location, StoreOptions options = {});
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  /// Adds records, all or none, in one transaction. `id`, `version` and `recorded_at` are ignored unless `id` is set, to
  /// link records of one call: new_record_id(). What the user has already (same kind, text and speaker; episodes also time
  /// and session, documents also source) is not stored again, unless it had ceased to hold by the new one's event time. `vectors`, one for each record or none at all, take the place
  /// of the embedder's. Throws Error(kInvalidArgument) that names the number of the record.
  std::vector<Added> add(std::span<const Record> records, std::span<const std::vector<float>> vectors = {});
  Added add(const Record& record) { return add(std::span(&record, 1)).front(); }

  /// The current version. `id` may be its first four or more characters when no other record of the user begins so.
  /// Throws Error(kNotFound), the same for records of others.
  Record get(const Scope& scope, const std::string& id);

  /// Writes a new version, made by `change` from the current one; id, tenant and user stay. With `expected_version`
  /// refuses when somebody else was faster. Returns the new version.
  Record update(const Scope& scope, const std::string& id, FunctionRef<void(Record&)> change,
                std::string_view operation = "update", std::string_view reason = "",
                std::optional<uint32_t> expected_version = {});

  /// kArchived: put away, not found by searches; kActive: back again. Merged records may be made active too.
  Record set_state(const Scope& scope, const std::string& id, State state, std::string_view reason = "");
  /// Marks records as merged into `into`, which gets links to them ("merges").
  void merge(const Scope& scope, std::span<const std::string> ids, const std::string& into,
             std::string_view reason = "");

  /// Calls `each` for the current versions of a user's records with one of the states, oldest first.
  void for_each(const Scope& scope, std::span<const State> states, FunctionRef<void(const Record&)> each);

  /// Counts a use of each record. Unknown ids are ignored.
  void touch(const Scope& scope, std::span<const std::string> ids);
  struct Usage {
    uint64_t hits = 0;
    Time last_hit = 0;
  };
  Usage usage(const Scope& scope, const std::string& id);

  struct Stats {
    uint64_t users = 0, active = 0, merged = 0, archived = 0, erased = 0, events = 0, vectors = 0, bytes = 0, index_bytes = 0;
    std::string embedding_model;
    uint32_t embedding_dimension = 0;
  };
  /// Of one tenant; `bytes` are the files of the whole store, `index_bytes` those of vector indexes.
  Stats stats(const std::string& tenant);

  /// Compares the tables with the log and kept vector indexes with the tables, and lets the database check itself. Throws Error(kCorruptData) with the first
  /// difference.
  void check();

  // For the other files of this layer.

  Database& database() { return *database_; }
  const StoreOptions& options() const { return options_; }
  const TermHasher& terms() const { return *terms_; }
  VectorSearch& vectors() { return *vectors_; }
  struct Embedding {
    std::string model;
    uint32_t dimension = 0;  ///< 0: no vector yet.
  };
  /// What made the stored vectors.
  Embedding embedding();
  /// Numbers in a stored vector; 0 when there is none yet.
  uint32_t embedding_dimension();
  Time clock() const { return options_.clock ? options_.clock() : now_of_machine(); }
  /// Number of a scope, or 0 when it has no records.
  int64_t scope_number(const Scope& scope);
  /// Runs `body(time)` as a write of one tenant; `time` is that of its events and never goes back.
  void write(const Scope& scope, FunctionRef<void(Time time)> body);
  /// Runs `body` on one state of the database.
  void read(const Scope& scope, FunctionRef<void()> body);
  /// Number of the record with this id or beginning of an id, inside a transaction. Throws Error(kNotFound).
  int64_t record_number(int64_t scope, const std::string& id);
  /// The current version of a record, inside a transaction.
  Record load(int64_t number);
  /// Makes `record` (normalised, version set) the current version of record `number`, 0 for a new one: event, tables and
  /// indexes. `before` is the version that it replaces. Returns the number. Inside write().
  int64_t put(int64_t scope, int64_t number, const Record* before, const Record& record, std::string_view operation,
              std::string_view reason);
  /// put() of a new version, with links and vector. Inside write().
  void replace(int64_t scope, int64_t number, const Record& before, const Record& after, std::string_view operation,
               std::string_view reason);
  /// Writes the rows of `record`'s links and parents; ids that the user does not have are passed over.
  void put_links(int64_t scope, int64_t number, const Record& record);
  /// Stores or replaces a vector made by `model`. Throws Error(kInvalidArgument) for a wrong dimension or numbers that are not finite.
  void put_vector(int64_t scope, int64_t number, std::span<const float> vector, const std::string& model);
  /// Takes a record out of indexes, links and counts; `record` is its current version.
  void unindex(int64_t scope, int64_t number, const Record& record);
  int64_t make_scope(const Scope& scope);
  std::string content_key(int64_t scope, const Record& record) const;
  /// Key of the hashes of words and names of series.
  uint64_t term_key() const { return term_key_; }

 private:
  explicit Store(std::unique_ptr<Database> database, StoreOptions options);
  static Time now_of_machine();
  void check_tables();
  /// Name of the embedder, "given" without one.
  std::string embedder_name() const;
  /// Reads model and dimension of the stored vectors; refuses an embedder that does not fit.
  void read_embedding();
  /// Terms of the index: the scope's own, then the record's.
  std::vector<std::string> index_terms(int64_t scope, const Record& record) const;
  /// The place of `after` in its series, with the counts changed; `before` is null for a new record.
  SeriesPlace move_in_series(int64_t scope, int64_t number, const Record* before, const Record& after,
                             int64_t n_old_terms, int64_t n_terms);
  /// Adds to the counts of indexed records and terms of a scope.
  void count(int64_t scope, int64_t records, int64_t terms);

  StoreOptions options_;
  Reservation cache_;
  std::unique_ptr<Database> database_;
  std::optional<TermHasher> terms_;
  uint64_t term_key_ = 0;
  std::string embedding_model_;
  uint32_t dimension_ = 0;  ///< 0: no vector yet.
  std::unique_ptr<VectorSearch> vectors_;
};

/// $XDG_DATA_HOME/mneme/recall/memory.db, or the same under ~/.local/share.
std::string default_store_path();

}  // namespace mneme::recall
