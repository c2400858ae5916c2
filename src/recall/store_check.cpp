// Store::check(): everything that is searched must follow from the log.

#include "base/error.h"
#include "recall/kept/vector_search.h"
#include "recall/search/vectors.h"
#include "recall/store.h"

namespace mneme::recall {

void Store::check() {
  Database& db = *database_;
  db.check_integrity();
  db.transaction(Database::Access::kRead, [&] {
    db.restrict_to_tenant(std::string(kAllTenants));
    check_tables();
    vectors_->check();
  });
}

void Store::check_tables() {
  Database& db = *database_;
  const auto differ = [&](const std::string& what) {
    fail(ErrorCode::kCorruptData, "[check store] {}: {}", db.name(), what);
  };
  const auto none = [&](const char* sql, const char* what) {
    const int64_t number = db.integer(sql, {});
    if (number != 0) differ(fmt::format("{} {}", what, number));
  };
  none("SELECT r.num FROM record r LEFT JOIN event e ON e.record = r.num AND e.version = r.version"
       " WHERE e.seq IS NULL LIMIT 1", "expected the newest event of each record, found none for record");
  none("SELECT e.record FROM event e LEFT JOIN record r ON r.num = e.record WHERE r.num IS NULL OR e.version > r.version"
       " OR e.scope <> r.scope LIMIT 1", "expected the log to end at each record's version, found more for record");
  none("SELECT v.record FROM vector v LEFT JOIN record r ON r.num = v.record WHERE r.num IS NULL OR r.state = 3 OR"
       " r.scope <> v.scope LIMIT 1", "expected vectors of living records, found one of record");
  none("SELECT l.source FROM link l JOIN record a ON a.num = l.source JOIN record b ON b.num = l.target"
       " WHERE a.scope <> b.scope OR a.scope <> l.scope LIMIT 1", "expected links inside one user's memory, found one from");
  none("SELECT s.num FROM scope s WHERE s.records <> (SELECT COUNT(*) FROM record r WHERE r.scope = s.num AND r.state <> 3)"
       " OR s.terms <> (SELECT COALESCE(SUM(r.n_terms), 0) FROM record r WHERE r.scope = s.num) LIMIT 1",
       "expected counts that agree with the records, found others for user");
  none("SELECT s.num FROM series s WHERE s.records = 0 OR"
       " s.records <> (SELECT COUNT(*) FROM record r WHERE r.series = s.num AND r.scope = s.scope) OR"
       " s.terms <> (SELECT COALESCE(SUM(r.n_terms), 0) FROM record r WHERE r.series = s.num) LIMIT 1",
       "expected counts that agree with the records, found others for series");
  none("SELECT s.num FROM scope s WHERE s.n_groups <> (SELECT COUNT(*) FROM series t WHERE t.scope = s.num) +"
       " (SELECT COUNT(*) FROM record r WHERE r.scope = s.num AND r.state <> 3 AND r.series IS NULL) LIMIT 1",
       "expected a number of series that agrees with the records, found another for user");
  // Each record against its newest event, and its terms in the index.
  db.query(
      "SELECT r.num, r.id, r.scope, r.version, r.state, r.kind, r.n_terms, r.event_time, r.recorded_at, s.tenant,"
      " s.user_name, e.payload, r.asks, COALESCE(t.name, '') FROM record r JOIN event e ON e.record = r.num AND e.version = r.version"
      " JOIN scope s ON s.num = r.scope LEFT JOIN series t ON t.num = r.series ORDER BY r.num",
      {}, [&](const SqlRow& row) {
        const std::string id = row.text(1);
        const bool erased = row.integer(4) == static_cast<int64_t>(State::kErased);
        if (row.is_null(11) != erased) differ("expected content exactly for what is not erased, found another at " + id);
        if (erased) return;
        const Record record = record_from_json(parse_json(row.text(11), "event of " + id), "event of " + id);
        if (record.id != id || record.version != row.integer(3) || static_cast<int64_t>(record.state) != row.integer(4) ||
            static_cast<int64_t>(record.kind) != row.integer(5) || record.event_time != row.integer(7) ||
            record.recorded_at != row.integer(8) || record.scope.tenant != row.text(9) ||
            record.scope.user != row.text(10) || int64_t{asks(record)} != row.integer(12) ||
            series_name(term_key_, record) != row.text(13)) {
          differ("expected the table to say what the log says, found another at record " + id);
        }
        const std::vector<std::string> terms = index_terms(row.integer(2), record);
        if (static_cast<int64_t>(terms.size()) != row.integer(6)) {
          differ("expected the length of the text in terms, found another at record " + id);
        }
        if (terms.size() < 2) return;
        const std::vector<TermMatch> found =
            db.match_terms(terms[0], std::span(terms).subspan(1, 1), "r.num = ?", std::vector<SqlValue>{row.integer(0)}, 2);
        if (found.size() != 1 || found[0].record != row.integer(0)) {
          differ("expected the record's words in the index, found none of " + id);
        }
      });
}

}  // namespace mneme::recall
