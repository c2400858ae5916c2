#pragma once

#include <cstdint>
#include <string>

#include "recall/record.h"
#include "recall/sql/database.h"

namespace mneme::recall {

/// A series is what was said or written together: the records of one session, or without one the pieces of a document
/// and the turns of a chat from one source. Its members stand in the order in which they were stored. Search scores a
/// record together with its neighbours and with its whole series (search/context_score.h). Other records are in no
/// series.
///
/// Table series holds counts and the next position; a series is named by a keyed hash, so it says nothing of a session
/// or file once the records are gone. All functions run inside a transaction.

/// Name of the record's series, "" for none; `key` is that of the store's term hashes.
std::string series_name(uint64_t key, const Record& record);
/// True for a turn of a dialogue that holds a question mark, of any script: the next one may be the answer.
bool asks(const Record& record);

/// Number of a series and a position in it; 0 for none.
struct SeriesPlace {
  int64_t series = 0, position = 0;
};
/// The next place in the series of that name, which is made when the user has none.
SeriesPlace next_place(Database& db, int64_t scope, const std::string& name);
/// Adds to the counts of a series, and removes it with its last record. Also keeps the user's number of groups: series,
/// and records in none.
void count_in_series(Database& db, int64_t scope, int64_t series, int64_t records, int64_t terms);

/// The table, and the place of each record that a store has already. Part of a migration.
void create_series(Database& db);

}  // namespace mneme::recall
