#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "budget/buffer.h"
#include "context/kv_layer.h"

namespace mneme {

/// Which channels of the keys a block stores, and in which order. A score is a sum over channels, so queries are picked in the
/// same order and nothing else changes.
///
/// ThinK (arXiv 2407.21018): channel c of a block is worth |q_c| |k_c|, the norms over the last 32 queries of the head's group
/// and over the block's keys; the channels that are worth most are kept:
///   keep the n largest of  sum_t q_tc^2 * sum_j k_jc^2
/// ThinK chooses once, at the end of the prompt; here each block chooses when it is sealed, with the queries of then.
///
/// K-sort (arXiv 2403.20137): channels in descending order of sum_j k_jc^2, so that the large ones share blocks of the block
/// floating point. The paper sorts by the norms of the rows of W_k; here the first tokens of the sequence say it, and the order
/// then stays.
void keep_channels(std::span<const float> worth, size_t n_kept, uint8_t* out);
void sort_channels(std::span<const float> energy, uint8_t* out);

/// Squares of the last 32 tokens' queries, summed over the query heads of each kv head: [32][kv head][key_dim].
class RecentQueries {
 public:
  static constexpr size_t kTokens = 32;

  static uint64_t reserved_bytes(const KvShape& shape);
  RecentQueries() = default;
  RecentQueries(const KvShape& shape, Ledger& ledger);

  void add(const KvQueries& queries, size_t first, size_t n);
  /// energy[c] = sum over the tokens of q_c^2 of one kv head.
  void energy(size_t head, std::span<float> energy) const;
  void copy_from(const RecentQueries& other);
  void save(StateWriter& out) const;
  void load(StateReader& in);
  uint64_t bytes() const { return squares_.size() == 0 ? 0 : Buffer::reserved_bytes(squares_.size()); }

 private:
  KvShape shape_;
  Buffer squares_;
  uint64_t n_ = 0;  ///< Tokens added.
};

}  // namespace mneme
