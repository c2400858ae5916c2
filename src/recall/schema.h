#pragma once

#include "recall/sql/database.h"

namespace mneme::recall {

/// Version of the tables that this program reads and writes.
constexpr int kSchemaVersion = 3;

/// Brings a database to `version`, one transaction a step, so that a killed migration leaves the step before. Many
/// processes may do it at once. Throws Error(kUnsupported) when the database is newer, Error(kCorruptData) when it is not
/// a store. Tables:
///
///   meta(key, value)     schema version, key of the term hashes, embedding model
///   scope                tenant and user, with the counts that BM25 needs
///   event                the truth: each version of each record as JSON; payload NULL after erasure
///   record               what searches filter and rank by, made from the newest event of each record
///   series               sessions and documents, with the counts that BM25 of a series needs
///   term                 text index (the database's own kind)
///   vector, link         embeddings; links and parents between records
///   copy                 cubes that were written, so that erasure reaches them
void migrate(Database& db, int version = kSchemaVersion);

/// Value of a key of table meta, or "".
std::string meta_value(Database& db, const std::string& key);
void set_meta(Database& db, const std::string& key, const std::string& value);

}  // namespace mneme::recall
