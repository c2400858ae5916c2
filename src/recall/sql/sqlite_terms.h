#pragma once

struct sqlite3;

namespace mneme::recall {

/// Registers the SQL function term_counts(TABLE) for FTS5 queries: a blob of one 16-bit count for each phrase of the
/// MATCH expression, in its order: how often the phrase occurs in the row, at most 65535. Scores are made from it outside
/// of SQLite, with statistics of one user's records alone; FTS5's own bm25() counts rows of all users.
/// Throws Error(kUnsupported) when the library lacks FTS5.
void register_term_counts(sqlite3* db);

}  // namespace mneme::recall
