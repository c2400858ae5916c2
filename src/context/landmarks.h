#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "budget/buffer.h"
#include "context/kv_layer.h"

namespace mneme {

/// One vector a chunk of kTokens tokens and kv head that stands for its keys when queries choose chunks (ShadowKV,
/// arXiv 2410.21465): the mean m of the rotated keys.
///
/// For the query heads of a group, s_j = softmax over all chunks of q . m_j * scale; a chunk is worth the largest s_j
/// of the group, and the chunks of most worth are chosen.
class Landmarks {
 public:
  static constexpr size_t kTokens = 8;

  static uint64_t reserved_bytes(const KvShape& shape, uint64_t n_chunks);
  Landmarks(const KvShape& shape, uint64_t most_chunks, Ledger& ledger);

  /// Makes room; throws Error(kOutOfBudget), and then the room is for some heads only until shrink_to().
  void grow_to(uint64_t n_chunks);
  void shrink_to(uint64_t n_chunks);
  uint64_t bytes() const;

  /// Sets the landmark of a chunk from its rotated keys [kTokens, key_dim]. Returns how alike the keys are: the least
  /// cosine of one of them with their mean, 1 where there is none.
  float set(uint64_t chunk, size_t head, const float* keys);

  /// The n chunks of [0, n_chunks) that are worth most to the queries q [n_rows, key_dim] of one kv head, in ascending
  /// order; of equal ones the first. `excluded` (ascending) are left out; n is at most the number of the others.
  /// `scores` is working memory.
  void choose(size_t head, const float* q, size_t n_rows, const KvQueries& how, size_t n_chunks,
              std::span<const int32_t> excluded, size_t n, std::vector<float>& scores, std::vector<int32_t>& out) const;

  /// Landmarks of [first, first + n), all heads, as they are saved.
  void save(uint64_t first, uint64_t n, StateWriter& out) const;
  void load(uint64_t first, uint64_t n, StateReader& in);
  void copy_from(const Landmarks& other, uint64_t n_chunks);

 private:
  std::byte* at(uint64_t chunk, size_t head) { return heads_[head].data() + chunk * row_bytes_; }
  const std::byte* at(uint64_t chunk, size_t head) const { return heads_[head].data() + chunk * row_bytes_; }

  size_t key_dim_, row_bytes_;
  std::vector<GrowingBuffer> heads_;  ///< [chunk][key_dim] f16 each.
};

}  // namespace mneme
