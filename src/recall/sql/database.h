#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/function_ref.h"

namespace mneme::recall {

/// In place of a tenant's name: rows of all tenants, for checks of a whole store. No name may hold this character.
constexpr std::string_view kAllTenants = "\x1f";

/// Bytes, as opposed to text, for a parameter.
struct Bytes {
  std::string value;
};

/// A parameter of a statement; monostate is NULL.
using SqlValue = std::variant<std::monostate, int64_t, double, std::string, Bytes>;

/// A row of an answer, valid inside the callback that receives it. Columns count from 0; NULL reads as 0 or "".
class SqlRow {
 public:
  virtual bool is_null(int column) const = 0;
  virtual int64_t integer(int column) const = 0;
  virtual double real(int column) const = 0;
  virtual std::string text(int column) const = 0;
  virtual std::string bytes(int column) const = 0;

 protected:
  ~SqlRow() = default;
};

/// What ranking needs of a record besides its terms: columns of table record.
struct RecordRow {
  int64_t n_terms = 0, event_time = 0;
  int64_t series = 0, position = 0;  ///< The series that it belongs to (series.h), 0 for none, and its place there.
  bool asks = false;                 ///< A turn of a dialogue with a question mark.
  double importance = 0.5, confidence = 1;
  std::string speaker;
};
/// The columns of RecordRow, of a row `r` of table record.
constexpr std::string_view kRecordRowColumns =
    "r.n_terms, r.event_time, r.series, r.position, r.asks, r.importance, r.confidence, r.speaker";
/// Reads them, from column `first` on.
inline RecordRow record_row(const SqlRow& row, int first) {
  return {row.integer(first),          row.integer(first + 1), row.integer(first + 2), row.integer(first + 3),
          row.integer(first + 4) != 0, row.real(first + 5),    row.real(first + 6),    row.text(first + 7)};
}

/// A number of terms in one record, found by Database::match_terms().
struct TermMatch {
  int64_t record;                ///< `num` of the record.
  std::vector<uint16_t> counts;  ///< How often each asked term occurs in it.
  RecordRow row = {};
};

/// One connection to a database; not thread-safe. Two implementations: SQLite (sqlite_database.h) and PostgreSQL
/// (postgres_database.h). Statements are written once for both: `?` for parameters, types BIGINT, TEXT, DOUBLE PRECISION
/// and BYTEA, which both understand. What differs is behind the virtual functions.
class Database {
 public:
  virtual ~Database() = default;

  /// Runs one statement, calling `each` for the rows of its answer. Throws Error(kIo, kCorruptData).
  virtual void query(std::string_view sql, std::span<const SqlValue> parameters,
                     FunctionRef<void(const SqlRow&)> each) = 0;
  /// Several statements without parameters or answers.
  virtual void script(const std::string& sql) = 0;

  enum class Access { kRead, kWrite };
  /// Runs `body` as one transaction: all of it or nothing. kRead sees one state of the database. Only one kWrite runs at
  /// a time on a database, in all processes; others wait. When the connection is lost `body` runs again, so it must only
  /// depend on the database and on what it sets itself. Throws what `body` throws, and Error(kIo).
  virtual void transaction(Access access, FunctionRef<void()> body) = 0;

  /// Restricts a connection to rows of one tenant where the database can enforce that (PostgreSQL); for the rest of the
  /// transaction.
  virtual void restrict_to_tenant(const std::string& tenant) = 0;

  /// Column type of a primary key that the database fills with growing numbers, never used twice.
  virtual std::string_view serial_key() const = 0;
  /// Names of all tables.
  virtual std::vector<std::string> tables() = 0;
  /// Makes the text index; part of the first migration.
  virtual void create_term_index() = 0;
  /// Lets connections see only those rows of a new table that belong to the tenant of restrict_to_tenant(), where the
  /// database can enforce that. The column `scope` of the table (`num` of table scope itself) says whose a row is.
  virtual void isolate_tenants(const std::string& table) = 0;

  /// The text index: `terms` of a record in order, with repetitions. A term is [a-z][a-z0-9]*.
  virtual void add_terms(int64_t record, std::span<const std::string> terms) = 0;
  /// `terms` are those that were added.
  virtual void remove_terms(int64_t record, std::span<const std::string> terms) = 0;
  /// Records that hold `required` and at least one of `terms` (1 to 64 distinct ones), at most `limit`, for each of
  /// which row `r` of table record satisfies the SQL condition `where` with its `parameters`.
  virtual std::vector<TermMatch> match_terms(const std::string& required, std::span<const std::string> terms,
                                             const std::string& where, std::span<const SqlValue> parameters,
                                             int64_t limit) = 0;

  /// A condition that the bytes of a text column contain the parameter, given as Bytes.
  virtual std::string contains_bytes(const std::string& column) const = 0;

  /// Makes deletions physical: what earlier states of the database left in logs and free pages is gone afterwards. With
  /// `rewrite` the whole database is written anew. Outside a transaction. Throws Error(kIo) when another connection
  /// holds on to an old state.
  virtual void scrub(bool rewrite) = 0;
  /// Files that hold bytes of the database; empty when they are on another machine.
  virtual std::vector<std::string> files() const = 0;
  /// Throws Error(kCorruptData) with the first damage that the database itself finds.
  virtual void check_integrity() = 0;
  /// For messages: the path, or the URL without password.
  virtual const std::string& name() const = 0;

  void execute(std::string_view sql, std::initializer_list<SqlValue> parameters = {}) {
    query(sql, {parameters.begin(), parameters.size()}, [](const SqlRow&) {});
  }
  void query(std::string_view sql, std::initializer_list<SqlValue> parameters, FunctionRef<void(const SqlRow&)> each) {
    query(sql, std::span<const SqlValue>(parameters.begin(), parameters.size()), each);
  }
  /// The first column of the first row as an integer, or `otherwise`.
  int64_t integer(std::string_view sql, std::initializer_list<SqlValue> parameters, int64_t otherwise = 0) {
    int64_t value = otherwise;
    query(sql, parameters, [&](const SqlRow& row) { value = row.integer(0); });
    return value;
  }
};

}  // namespace mneme::recall
