#include "recall/sql/sqlite_terms.h"

#include <sqlite3.h>

#include <cstdint>
#include <vector>

#include "base/error.h"

namespace mneme::recall {
namespace {

void term_counts(const Fts5ExtensionApi* api, Fts5Context* context, sqlite3_context* result, int, sqlite3_value**) {
  std::vector<uint16_t> counts(static_cast<size_t>(api->xPhraseCount(context)));
  int n = 0;
  int status = api->xInstCount(context, &n);
  for (int i = 0; status == SQLITE_OK && i < n; ++i) {
    int phrase = 0, column = 0, offset = 0;
    status = api->xInst(context, i, &phrase, &column, &offset);
    if (status == SQLITE_OK && counts[static_cast<size_t>(phrase)] < UINT16_MAX) ++counts[static_cast<size_t>(phrase)];
  }
  if (status != SQLITE_OK) {
    sqlite3_result_error_code(result, status);
    return;
  }
  sqlite3_result_blob64(result, counts.data(), counts.size() * sizeof(uint16_t), SQLITE_TRANSIENT);
}

}  // namespace

void register_term_counts(sqlite3* db) {
  fts5_api* api = nullptr;
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db, "SELECT fts5(?1)", -1, &statement, nullptr) == SQLITE_OK) {
    sqlite3_bind_pointer(statement, 1, &api, "fts5_api_ptr", nullptr);
    sqlite3_step(statement);
  }
  sqlite3_finalize(statement);
  if (api == nullptr || api->xCreateFunction(api, "term_counts", nullptr, term_counts, nullptr) != SQLITE_OK) {
    fail(ErrorCode::kUnsupported, "[open store] expected SQLite {} with FTS5, found it without", sqlite3_libversion());
  }
}

}  // namespace mneme::recall
