#include "recall/series.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <charconv>
#include <vector>

#include "base/json.h"
#include "recall/schema.h"

namespace mneme::recall {
namespace {

void set_place(Database& db, int64_t scope, int64_t number, int64_t n_terms, const std::string& name, bool asks) {
  const SeriesPlace place = name.empty() ? SeriesPlace{} : next_place(db, scope, name);
  count_in_series(db, scope, place.series, 1, n_terms);
  db.execute(
      "UPDATE record SET series = ?, position = ?, asks = ? WHERE num = ?",
      {place.series == 0 ? SqlValue(std::monostate()) : SqlValue(place.series), place.position, int64_t{asks}, number});
}

/// Puts the records that a store has into series, in the order in which they were stored.
void place_records(Database& db) {
  const std::string text = meta_value(db, "term_key");
  uint64_t key = 0;
  std::from_chars(text.data(), text.data() + text.size(), key, 16);
  struct Known {
    int64_t number, scope, n_terms;
    std::string name;
    bool asks;
  };
  std::vector<Known> known;
  int64_t last = 0;
  do {
    known.clear();
    db.query(
        "SELECT r.num, r.scope, r.n_terms, e.payload FROM record r JOIN event e ON e.record = r.num AND"
        " e.version = r.version WHERE r.num > ? AND e.payload IS NOT NULL ORDER BY r.num LIMIT 1000",
        {last}, [&](const SqlRow& row) {
          const Record record = record_from_json(parse_json(row.text(3), "event"), "event");
          known.push_back({row.integer(0), row.integer(1), row.integer(2), series_name(key, record), asks(record)});
        });
    for (const Known& each : known) {
      set_place(db, each.scope, each.number, each.n_terms, each.name, each.asks);
      last = each.number;
    }
  } while (!known.empty());
}

}  // namespace

std::string series_name(uint64_t key, const Record& record) {
  std::string name;
  if (!record.scope.session.empty()) {
    name = "session\x1f" + record.scope.session;
  } else if ((record.kind == Kind::kDocument || record.kind == Kind::kEpisode) && !record.source.uri.empty()) {
    // An imported turn is FILE#NUMBER.
    name = "source\x1f" + record.source.uri.substr(0, record.source.uri.find('#'));
  } else {
    return "";
  }
  const XXH128_hash_t hash = XXH3_128bits_withSeed(name.data(), name.size(), key);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

bool asks(const Record& record) {
  if (record.kind != Kind::kEpisode) return false;
  // ?, and those of Arabic, Chinese and Japanese
  for (const char* mark : {"?", "\u061f", "\uff1f"}) {
    if (record.text.find(mark) != std::string::npos) return true;
  }
  return false;
}

SeriesPlace next_place(Database& db, int64_t scope, const std::string& name) {
  SeriesPlace place;
  db.query("UPDATE series SET next = next + 1 WHERE scope = ? AND name = ? RETURNING num, next", {scope, name},
           [&](const SqlRow& row) {
             place = {row.integer(0), row.integer(1)};
           });
  if (place.series != 0) return place;
  const int64_t number = db.integer(
      "INSERT INTO series(scope, name, records, terms, next) VALUES (?, ?, 0, 0, 1) RETURNING num", {scope, name});
  db.execute("UPDATE scope SET n_groups = n_groups + 1 WHERE num = ?", {scope});
  return {number, 1};
}

void count_in_series(Database& db, int64_t scope, int64_t series, int64_t records, int64_t terms) {
  if (series == 0) {
    if (records != 0) db.execute("UPDATE scope SET n_groups = n_groups + ? WHERE num = ?", {records, scope});
    return;
  }
  db.execute("UPDATE series SET records = records + ?, terms = terms + ? WHERE num = ?", {records, terms, series});
  if (records >= 0) return;
  bool gone = false;
  db.query("DELETE FROM series WHERE num = ? AND records = 0 RETURNING num", {series},
           [&](const SqlRow&) { gone = true; });
  if (gone) db.execute("UPDATE scope SET n_groups = n_groups - 1 WHERE num = ?", {scope});
}

void create_series(Database& db) {
  db.script(
      fmt::format("CREATE TABLE series(num {}, scope BIGINT NOT NULL, name TEXT NOT NULL, records BIGINT NOT NULL,"
                  " terms BIGINT NOT NULL, next BIGINT NOT NULL, UNIQUE(scope, name));"
                  "ALTER TABLE scope ADD COLUMN n_groups BIGINT NOT NULL DEFAULT 0;"
                  "ALTER TABLE record ADD COLUMN series BIGINT;"
                  "ALTER TABLE record ADD COLUMN position BIGINT NOT NULL DEFAULT 0;"
                  "ALTER TABLE record ADD COLUMN asks BIGINT NOT NULL DEFAULT 0;"
                  "CREATE INDEX record_of_series ON record(series, position) WHERE series IS NOT NULL",
                  db.serial_key()));
  db.isolate_tenants("series");
  db.restrict_to_tenant(std::string(kAllTenants));
  place_records(db);
}

}  // namespace mneme::recall
