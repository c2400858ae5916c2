#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "recall/sql/database.h"

namespace mneme::recall {

/// A vector as it is stored: scaled to length 1, f32 little-endian. Throws Error(kInvalidArgument) when it has not
/// `dimension` numbers (0: any from 1 to 65536), a number that is not finite, or length 0.
std::string stored_vector(std::span<const float> vector, uint32_t dimension);
/// The reverse of the bytes.
std::vector<float> vector_from_bytes(std::string_view bytes);

float dot(std::span<const float> a, std::span<const float> b);

/// A record and its cosine with a query.
struct VectorMatch {
  int64_t record;
  float cosine;
};

/// The `k` records of a scope closest to `query` (of length 1) that satisfy the SQL condition `where` on row `r` of table
/// record, closest first: an exact scan of the scope's vectors. Adds the number of vectors compared to `n_read`.
std::vector<VectorMatch> match_vectors(Database& db, int64_t scope, std::span<const float> query,
                                       const std::string& where, std::span<const SqlValue> parameters, size_t k,
                                       uint64_t& n_read);

/// Reads record and vector of up to `n` given records of a scope that satisfy `where`; parameters: the scope, n records,
/// those of `where`. SQLite is kept from walking through the whole scope instead: it guesses that a scope is small.
std::string vectors_of_records_sql(size_t n, const std::string& where);

}  // namespace mneme::recall
