#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "budget/ledger.h"
#include "recall/index/spann_index.h"
#include "recall/index/vector_index.h"

namespace mneme::ann {

enum class IndexKind { kExact, kHnsw, kSpann };

/// "exact", "hnsw", "spann".
std::string_view index_kind_name(IndexKind kind);
/// The kind of that name, or nothing.
std::optional<IndexKind> find_index_kind(std::string_view name);

/// RAM that an index of `n` vectors takes, about: what it holds when built, without the scratch of building.
uint64_t index_ram_bytes(IndexKind kind, uint64_t n, size_t dimension, const SpannOptions& spann = {});

/// The kind for `n` vectors in `memory` bytes of RAM:
///   exact  while comparing with all takes well under a millisecond (2^21 values) and they fit;
///   hnsw   when the graph over all vectors fits;
///   spann  otherwise: heads in RAM, the rest on disk.
/// Throws Error(kOutOfBudget) with the numbers when not even the heads fit.
IndexKind choose_index_kind(uint64_t n, size_t dimension, uint64_t memory, const SpannOptions& spann = {});

/// An empty index of a kind. `folder` is for SPANN.
std::unique_ptr<VectorIndex> make_vector_index(IndexKind kind, Ledger& ledger, size_t dimension, Metric metric,
                                               const std::string& folder, const SpannOptions& spann = {});

}  // namespace mneme::ann
