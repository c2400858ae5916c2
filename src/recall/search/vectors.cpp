#include "recall/search/vectors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace mneme::recall {

static_assert(std::endian::native == std::endian::little, "vectors are stored little-endian");
constexpr size_t kMaxDimension = 65536;

std::string stored_vector(std::span<const float> vector, uint32_t dimension) {
  if (dimension != 0 ? vector.size() != dimension : vector.empty() || vector.size() > kMaxDimension) {
    fail(ErrorCode::kInvalidArgument, "[store vector] expected {} numbers, found {}",
         dimension != 0 ? std::to_string(dimension) : "1 to 65536", vector.size());
  }
  double square = 0;
  for (const float x : vector) square += double{x} * x;
  if (!std::isfinite(square) || square <= 0) {
    fail(ErrorCode::kInvalidArgument,
         "[store vector] expected finite numbers that are not all zero, found a length of {}", std::sqrt(square));
  }
  const double scale = 1 / std::sqrt(square);
  std::string bytes(vector.size() * sizeof(float), '\0');
  for (size_t i = 0; i < vector.size(); ++i) {
    const float x = static_cast<float>(vector[i] * scale);
    std::memcpy(&bytes[i * sizeof(float)], &x, sizeof(float));
  }
  return bytes;
}

std::vector<float> vector_from_bytes(std::string_view bytes) {
  std::vector<float> vector(bytes.size() / sizeof(float));
  std::memcpy(vector.data(), bytes.data(), vector.size() * sizeof(float));
  return vector;
}

float dot(std::span<const float> a, std::span<const float> b) {
  float sum = 0;
  const size_t n = std::min(a.size(), b.size());
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<VectorMatch> match_vectors(Database& db, int64_t scope, std::span<const float> query,
                                       const std::string& where, std::span<const SqlValue> parameters, size_t k,
                                       uint64_t& n_read) {
  std::vector<SqlValue> all = {scope};
  all.insert(all.end(), parameters.begin(), parameters.end());
  std::vector<VectorMatch> matches;
  db.query("SELECT v.record, v.data FROM vector v JOIN record r ON r.num = v.record WHERE v.scope = ? AND " + where,
           all, [&](const SqlRow& row) {
             const std::vector<float> vector = vector_from_bytes(row.bytes(1));
             matches.push_back({row.integer(0), dot(query, vector)});
             ++n_read;
           });
  const auto closer = [](const VectorMatch& a, const VectorMatch& b) {
    return a.cosine != b.cosine ? a.cosine > b.cosine : a.record < b.record;
  };
  const size_t n = std::min(k, matches.size());
  std::partial_sort(matches.begin(), matches.begin() + static_cast<ptrdiff_t>(n), matches.end(), closer);
  matches.resize(n);
  return matches;
}

std::string vectors_of_records_sql(size_t n, const std::string& where) {
  std::string sql =
      "SELECT v.record, v.data FROM vector v JOIN record r ON r.num = v.record WHERE +v.scope = ? AND v.record IN (?";
  for (size_t i = 1; i < n; ++i) sql += ", ?";
  return sql + ") AND " + where;
}

}  // namespace mneme::recall
