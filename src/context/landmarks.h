#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "budget/buffer.h"
#include "context/kv_layer.h"
#include "kernels/coded_matrix.h"

namespace mneme {

/// One vector a chunk of kTokens tokens and kv head that stands for its keys when queries choose chunks (ShadowKV,
/// arXiv 2410.21465): the mean m of the rotated keys.
///
/// For the query heads of a group, s_j = softmax over all chunks of q . m_j * scale; a chunk is worth the largest s_j
/// of the group, and the chunks of most worth are chosen. Computed are logarithms, log s_j = q . m_j * scale - log sum.
///
/// Where this differs from the paper, whose landmarks have 16 bits: they are codes of 8 bits with scale and zero (f16
/// each) for every 64 channels of a landmark, since choosing reads all of them for each token: key_dim + 4 (key_dim /
/// 64) bytes instead of 2 key_dim. 32 landmarks, those of a page of saved state, are a matrix [32, key_dim].
class Landmarks {
 public:
  static constexpr size_t kTokens = 8;
  static constexpr size_t kLanes = 32;  ///< Landmarks of a matrix.

  static uint64_t reserved_bytes(const KvShape& shape, uint64_t n_chunks);
  /// Throws Error(kUnsupported) for a head size that the codes do not have.
  Landmarks(const KvShape& shape, uint64_t most_chunks, Ledger& ledger);

  /// Makes room; throws Error(kOutOfBudget), and then the room is for some heads only until shrink_to().
  void grow_to(uint64_t n_chunks);
  void shrink_to(uint64_t n_chunks);
  uint64_t bytes() const;

  /// Sets the landmark of a chunk from its rotated keys [kTokens, key_dim]. Returns how alike the keys are: the least
  /// cosine of one of them with their mean, 1 where there is none.
  float set(uint64_t chunk, size_t head, const float* keys);
  /// What the landmark of a chunk is read as, [key_dim].
  void decode(uint64_t chunk, size_t head, float* out) const;

  /// The n chunks of [0, n_chunks) that are worth most to the queries q [n_rows, key_dim] of one kv head, in ascending
  /// order; of equal ones the first. `excluded` (ascending) are left out; n is at most the number of the others.
  void choose(size_t head, const float* q, size_t n_rows, const KvQueries& how, size_t n_chunks,
              std::span<const int32_t> excluded, size_t n, std::vector<int32_t>& out) const;

  /// Landmarks of chunks [first, first + n), all heads, as they are saved: whole matrices; `first` begins one.
  void save(uint64_t first, uint64_t n, StateWriter& out) const;
  void load(uint64_t first, uint64_t n, StateReader& in);
  void copy_from(const Landmarks& other, uint64_t n_chunks);

 private:
  static kernels::CodedMatrix matrix_of(const KvShape& shape);
  std::byte* matrix(uint64_t i, size_t head) { return heads_[head].data() + i * matrix_.bytes(); }
  const std::byte* matrix(uint64_t i, size_t head) const { return heads_[head].data() + i * matrix_.bytes(); }

  size_t key_dim_;
  kernels::CodedMatrix matrix_;
  std::vector<GrowingBuffer> heads_;  ///< Matrices of each.
};

}  // namespace mneme
