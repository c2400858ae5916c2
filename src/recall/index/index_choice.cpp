#include "recall/index/index_choice.h"

#include <array>

#include "base/byte_size.h"
#include "base/error.h"
#include "recall/index/exact_index.h"
#include "recall/index/hnsw_index.h"

namespace mneme::ann {
namespace {

constexpr uint64_t kExactValues = uint64_t{1} << 21;  ///< n * dimension that are compared in about 0.2 ms.
constexpr uint64_t kIdBytes = 14;                     ///< Id, state and table entry of a vector.
constexpr uint64_t kGraphBytes = 210;                 ///< Links, label, lock and level of a node with M = 16.

}  // namespace

std::string_view index_kind_name(IndexKind kind) {
  constexpr std::array<std::string_view, 3> kNames = {"exact", "hnsw", "spann"};
  return kNames[static_cast<size_t>(kind)];
}

std::optional<IndexKind> find_index_kind(std::string_view name) {
  for (const IndexKind kind : {IndexKind::kExact, IndexKind::kHnsw, IndexKind::kSpann}) {
    if (name == index_kind_name(kind)) return kind;
  }
  return std::nullopt;
}

uint64_t index_ram_bytes(IndexKind kind, uint64_t n, size_t dimension, const SpannOptions& spann) {
  switch (kind) {
    case IndexKind::kExact:
      return n * (dimension * 4 + kIdBytes);
    case IndexKind::kHnsw:
      return n * (dimension * 4 + kGraphBytes + kIdBytes);
    case IndexKind::kSpann:
      break;
  }
  const uint64_t heads = n / spann.leaf + 1;
  return HeadTable::bytes_of(heads, dimension) + heads * sizeof(ListEntry) + n * kIdBytes + spann.pending_bytes;
}

IndexKind choose_index_kind(uint64_t n, size_t dimension, uint64_t memory, const SpannOptions& spann) {
  for (IndexKind kind : {IndexKind::kExact, IndexKind::kHnsw, IndexKind::kSpann}) {
    if (kind == IndexKind::kExact && n * dimension > kExactValues) continue;
    if (index_ram_bytes(kind, n, dimension, spann) <= memory) return kind;
  }
  fail(ErrorCode::kOutOfBudget, "[choose index] {} vectors of {} values: expected at least {} for the heads, found {}",
       n, dimension, format_byte_size(index_ram_bytes(IndexKind::kSpann, n, dimension, spann)), format_byte_size(memory));
}

std::unique_ptr<VectorIndex> make_vector_index(IndexKind kind, Ledger& ledger, size_t dimension, Metric metric,
                                               const std::string& folder, const SpannOptions& spann) {
  switch (kind) {
    case IndexKind::kExact:
      return std::make_unique<ExactIndex>(ledger, dimension, metric);
    case IndexKind::kHnsw:
      return std::make_unique<HnswIndex>(ledger, dimension, metric);
    case IndexKind::kSpann:
      break;
  }
  return SpannIndex::create(ledger, folder, dimension, metric, spann);
}

}  // namespace mneme::ann
