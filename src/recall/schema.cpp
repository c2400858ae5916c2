#include "recall/schema.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "recall/search/terms.h"
#include "recall/series.h"

namespace mneme::recall {
namespace {

/// Key of the term hashes: random, one for each store.
std::string new_key() {
  uint64_t key = 0;
  if (getrandom(&key, sizeof(key), 0) != static_cast<ssize_t>(sizeof(key))) fail_errno("create store", "getrandom");
  return fmt::format("{:016x}", key);
}

void create_records(Database& db) {
  const std::string_view key = db.serial_key();
  db.script(fmt::format(
      "CREATE TABLE scope(num {0}, tenant TEXT NOT NULL, user_name TEXT NOT NULL, records BIGINT NOT NULL DEFAULT 0,"
      " terms BIGINT NOT NULL DEFAULT 0, UNIQUE(tenant, user_name));"
      "CREATE TABLE event(seq {0}, record BIGINT NOT NULL, version BIGINT NOT NULL, scope BIGINT NOT NULL,"
      " time BIGINT NOT NULL, operation TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, payload TEXT);"
      "CREATE UNIQUE INDEX event_of_record ON event(record, version);"
      "CREATE INDEX event_of_scope ON event(scope, time);"
      "CREATE TABLE record(num {0}, id TEXT NOT NULL, scope BIGINT NOT NULL, version BIGINT NOT NULL,"
      " state BIGINT NOT NULL, kind BIGINT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL,"
      " speaker TEXT NOT NULL, tags TEXT NOT NULL, source TEXT NOT NULL, event_time BIGINT NOT NULL,"
      " valid_until BIGINT, expires_at BIGINT, recorded_at BIGINT NOT NULL, confidence DOUBLE PRECISION NOT NULL,"
      " importance DOUBLE PRECISION NOT NULL, n_terms BIGINT NOT NULL, content_key TEXT,"
      " hits BIGINT NOT NULL DEFAULT 0, last_hit BIGINT NOT NULL DEFAULT 0, UNIQUE(scope, id));"
      "CREATE INDEX record_of_scope ON record(scope, recorded_at);"
      "CREATE UNIQUE INDEX record_content ON record(scope, content_key) WHERE content_key IS NOT NULL",
      key));
  db.create_term_index();
  for (const char* table : {"scope", "event", "record"}) db.isolate_tenants(table);
  set_meta(db, "term_key", new_key());
  set_meta(db, "term_rules", std::to_string(kTermRules));
}

void create_vectors_and_links(Database& db) {
  db.script(
      "CREATE TABLE vector(record BIGINT PRIMARY KEY, scope BIGINT NOT NULL, data BYTEA NOT NULL);"
      "CREATE INDEX vector_of_scope ON vector(scope);"
      "CREATE TABLE link(source BIGINT NOT NULL, target BIGINT NOT NULL, is_parent BIGINT NOT NULL,"
      " scope BIGINT NOT NULL, PRIMARY KEY(source, target, is_parent));"
      "CREATE INDEX link_to ON link(target);"
      "CREATE TABLE copy(path TEXT PRIMARY KEY, scope BIGINT NOT NULL, time BIGINT NOT NULL)");
  for (const char* table : {"vector", "link", "copy"}) db.isolate_tenants(table);
}

constexpr void (*kSteps[])(Database&) = {create_records, create_vectors_and_links, create_series};
static_assert(std::size(kSteps) == kSchemaVersion);

/// Version of the tables, 0 for an empty database.
int version_of(Database& db) {
  const std::vector<std::string> tables = db.tables();
  if (tables.empty()) return 0;
  if (std::find(tables.begin(), tables.end(), "meta") == tables.end()) {
    fail(ErrorCode::kCorruptData, "[open store] {}: expected a memory store, found another kind of database", db.name());
  }
  const std::string text = meta_value(db, "schema_version");
  int version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc() || end != text.data() + text.size() || version < 1) {
    fail(ErrorCode::kCorruptData, "[open store] {}: expected a schema version, found '{}'", db.name(), brief_text(text));
  }
  if (version > kSchemaVersion) {
    throw Error(ErrorCode::kUnsupported, fmt::format("[open store] {}: expected schema version {} or older, found {}",
                                                     db.name(), kSchemaVersion, version),
                "a newer mneme wrote it");
  }
  return version;
}

}  // namespace

std::string meta_value(Database& db, const std::string& key) {
  std::string value;
  db.query("SELECT value FROM meta WHERE key = ?", {key}, [&](const SqlRow& row) { value = row.text(0); });
  return value;
}

void set_meta(Database& db, const std::string& key, const std::string& value) {
  db.execute("INSERT INTO meta(key, value) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
             {key, value});
}

void migrate(Database& db, int version) {
  int have = 0;
  db.transaction(Database::Access::kRead, [&] { have = version_of(db); });
  while (have < version) {
    db.transaction(Database::Access::kWrite, [&] {
      have = version_of(db);  // another process may have been faster
      if (have >= version) return;
      if (have == 0) db.script("CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL)");
      kSteps[have](db);
      set_meta(db, "schema_version", std::to_string(++have));
    });
  }
}

}  // namespace mneme::recall
