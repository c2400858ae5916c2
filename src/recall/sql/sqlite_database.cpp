#include "recall/sql/sqlite_database.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"
#include "recall/sql/sqlite_terms.h"

namespace mneme::recall {
namespace {

struct CloseDatabase {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

class Row final : public SqlRow {
 public:
  explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
  bool is_null(int column) const override { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  int64_t integer(int column) const override { return sqlite3_column_int64(statement_, column); }
  double real(int column) const override { return sqlite3_column_double(statement_, column); }
  std::string text(int column) const override { return bytes(column); }
  std::string bytes(int column) const override {
    const void* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
  }

 private:
  sqlite3_stmt* statement_;
};

class SqliteDatabase final : public Database {
 public:
  SqliteDatabase(const std::string& path, const SqliteOptions& options) : path_(path), read_only_(options.read_only) {
    const int flags = options.read_only ? SQLITE_OPEN_READONLY
                                        : SQLITE_OPEN_READWRITE | (options.create ? SQLITE_OPEN_CREATE : 0);
    sqlite3* db = nullptr;
    const int status = sqlite3_open_v2(path.c_str(), &db, flags | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_NOMUTEX,
                                       options.vfs.empty() ? nullptr : options.vfs.c_str());
    db_.reset(db);
    if (status != SQLITE_OK) refuse("open store");
    sqlite3_busy_timeout(db, options.busy_ms);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    // With a file layer of its own nobody else opens the file, and shared memory may be missing.
    if (!options.vfs.empty()) script("PRAGMA locking_mode = EXCLUSIVE");
    script(fmt::format("PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;"
                       "PRAGMA cache_size = -{}",
                       std::max<uint64_t>(options.cache_bytes >> 10, 256)));
    if (!read_only_) {
      script(fmt::format("PRAGMA journal_mode = {}; PRAGMA synchronous = FULL", options.single_file ? "DELETE" : "WAL"));
    }
    register_term_counts(db);
  }

  using Database::query;

  void query(std::string_view sql, std::span<const SqlValue> parameters,
             FunctionRef<void(const SqlRow&)> each) override {
    sqlite3_stmt* statement = prepared(sql);
    ++n_running_;
    struct Reset {
      sqlite3_stmt* statement;
      int& n_running;
      ~Reset() {
        sqlite3_reset(statement);
        sqlite3_clear_bindings(statement);
        --n_running;
      }
    } reset{statement, n_running_};
    for (size_t i = 0; i < parameters.size(); ++i) bind(statement, static_cast<int>(i) + 1, parameters[i]);
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) each(Row(statement));
    if (status != SQLITE_DONE) refuse("use store");
  }

  void script(const std::string& sql) override {
    if (sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) refuse("use store");
  }

  void transaction(Access access, FunctionRef<void()> body) override {
    script(access == Access::kWrite ? "BEGIN IMMEDIATE" : "BEGIN");
    try {
      body();
      script("COMMIT");
    } catch (...) {
      if (sqlite3_get_autocommit(db_.get()) == 0) sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
      throw;
    }
  }

  void restrict_to_tenant(const std::string&) override {}

  std::string_view serial_key() const override { return "INTEGER PRIMARY KEY AUTOINCREMENT"; }

  void isolate_tenants(const std::string&) override {}

  std::vector<std::string> tables() override {
    std::vector<std::string> names;
    query("SELECT name FROM sqlite_master WHERE type = 'table'", {},
          [&](const SqlRow& row) { names.push_back(row.text(0)); });
    return names;
  }

  void create_term_index() override {
    // Contentless: the index alone. Terms are hashes, so it holds no text.
    script("CREATE VIRTUAL TABLE term USING fts5(terms, content='', tokenize='ascii', columnsize=0)");
  }

  void add_terms(int64_t record, std::span<const std::string> terms) override {
    execute("INSERT INTO term(rowid, terms) VALUES (?, ?)", {record, joined(terms)});
  }

  void remove_terms(int64_t record, std::span<const std::string> terms) override {
    execute("INSERT INTO term(term, rowid, terms) VALUES ('delete', ?, ?)", {record, joined(terms)});
  }

  std::vector<TermMatch> match_terms(const std::string& required, std::span<const std::string> terms,
                                     const std::string& where, std::span<const SqlValue> parameters,
                                     int64_t limit) override {
    std::string expression = required + " AND (";
    for (size_t i = 0; i < terms.size(); ++i) expression += (i > 0 ? " OR " : "") + terms[i];
    std::vector<SqlValue> all = {expression + ")"};
    all.insert(all.end(), parameters.begin(), parameters.end());
    all.emplace_back(limit);
    std::vector<TermMatch> matches;
    query(
        fmt::format("SELECT term.rowid, term_counts(term), {} FROM term CROSS JOIN record r ON r.num = term.rowid"
                    " WHERE term MATCH ? AND {} LIMIT ?",
                    kRecordRowColumns, where),
        all, [&](const SqlRow& row) {
          const std::string counts = row.bytes(1);
          TermMatch match{row.integer(0), std::vector<uint16_t>(terms.size()), record_row(row, 2)};
          // The first phrase is `required`.
          for (size_t i = 0; i < terms.size() && (i + 1) * 2 + 2 <= counts.size(); ++i) {
            std::memcpy(&match.counts[i], counts.data() + (i + 1) * 2, 2);
          }
          matches.push_back(std::move(match));
        });
    return matches;
  }

  std::string contains_bytes(const std::string& column) const override {
    return "instr(CAST(" + column + " AS BLOB), ?) > 0";
  }

  void scrub(bool rewrite) override {
    statements_.clear();
    if (rewrite) script("VACUUM");
    bool busy = false;
    query("PRAGMA wal_checkpoint(TRUNCATE)", {}, [&](const SqlRow& row) { busy = row.integer(0) != 0; });
    if (busy) {
      throw Error(ErrorCode::kIo,
                  fmt::format("[erase] {}: another process still reads an older state of the store", path_),
                  "let it end, then run the command again");
    }
  }

  std::vector<std::string> files() const override {
    std::vector<std::string> found;
    for (const char* end : {"", "-wal", "-shm", "-journal"}) {
      if (std::filesystem::exists(path_ + end)) found.push_back(path_ + end);
    }
    return found;
  }

  void check_integrity() override {
    std::string first;
    query("PRAGMA integrity_check(1)", {}, [&](const SqlRow& row) { first = row.text(0); });
    if (first != "ok") fail(ErrorCode::kCorruptData, "[check store] {}: {}", path_, brief_text(first, 200));
    // 'integrity-check' of FTS5 refuses nothing on a contentless table but reads all of it.
    if (!read_only_) {
      int64_t n = integer("SELECT COUNT(*) FROM sqlite_master WHERE name = 'term'", {});
      if (n > 0) script("INSERT INTO term(term) VALUES ('integrity-check')");
    }
  }

  const std::string& name() const override { return path_; }

 private:
  static std::string joined(std::span<const std::string> terms) {
    std::string all;
    for (const std::string& term : terms) all += (all.empty() ? "" : " ") + term;
    return all;
  }

  sqlite3_stmt* prepared(std::string_view sql) {
    const auto found = statements_.find(std::string(sql));
    if (found != statements_.end()) return found->second.get();
    if (statements_.size() > 200 && n_running_ == 0) statements_.clear();  // filters make statements of many forms
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v3(db_.get(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement,
                           nullptr) != SQLITE_OK) {
      refuse("use store");
    }
    return statements_.emplace(std::string(sql), Statement(statement)).first->second.get();
  }

  void bind(sqlite3_stmt* statement, int index, const SqlValue& value) {
    int status = SQLITE_OK;
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      status = sqlite3_bind_int64(statement, index, *integer);
    } else if (const auto* real = std::get_if<double>(&value)) {
      status = sqlite3_bind_double(statement, index, *real);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      status = sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_STATIC, SQLITE_UTF8);
    } else if (const auto* bytes = std::get_if<Bytes>(&value)) {
      status = sqlite3_bind_blob64(statement, index, bytes->value.data(), bytes->value.size(), SQLITE_STATIC);
    } else {
      status = sqlite3_bind_null(statement, index);
    }
    if (status != SQLITE_OK) refuse("use store");
  }

  [[noreturn]] void refuse(std::string_view operation) {
    const int status = db_ ? sqlite3_extended_errcode(db_.get()) : SQLITE_NOMEM;
    const std::string reason = db_ ? sqlite3_errmsg(db_.get()) : "out of memory";
    switch (status & 0xFF) {
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
        fail(ErrorCode::kCorruptData, "[{}] {}: expected a sound SQLite file, found: {}", operation, path_, reason);
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
        throw Error(ErrorCode::kIo, fmt::format("[{}] {}: another process kept it locked for too long", operation, path_),
                    "try again");
      case SQLITE_CANTOPEN:
        if (!std::filesystem::exists(path_)) fail(ErrorCode::kNotFound, "[{}] {}: no such file", operation, path_);
        [[fallthrough]];
      default: fail(ErrorCode::kIo, "[{}] {}: {}", operation, path_, reason);
    }
  }

  std::string path_;
  bool read_only_;
  int n_running_ = 0;  ///< Statements inside query(), which may be nested.
  std::unique_ptr<sqlite3, CloseDatabase> db_;
  std::unordered_map<std::string, Statement> statements_;  // after db_: destroyed before it
};

}  // namespace

std::unique_ptr<Database> open_sqlite(const std::string& path, const SqliteOptions& options) {
  return std::make_unique<SqliteDatabase>(path, options);
}

}  // namespace mneme::recall
