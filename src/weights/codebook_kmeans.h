#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// k-means with weights (Lloyd's algorithm), for codebooks of vectors of 1, 2, 4 or 8 weights.
namespace mneme {

/// `points` are the groups of `group` columns of a matrix [rows, columns], columns a multiple of it; the squared error
/// of column c is weighed with importance[c] > 0. Returns 2^bits centres [2^bits][group]. First centres are random
/// points (for groups of one, quantiles); an empty cluster takes the point that is farthest from its centre. Large
/// matrices are seen through a random choice of rows. Ends when an iteration gains less than a thousandth, or after
/// `iterations`. Parallel inside, the same for any number of threads.
std::vector<float> kmeans_codebook(std::span<const float> points, size_t columns, size_t group, uint32_t bits,
                                   std::span<const float> importance, int iterations, uint64_t seed);

/// Codes of all groups under a codebook: codes[(row * groups + j) * stride].
void nearest_codes(std::span<const float> points, size_t columns, size_t group, std::span<const float> importance,
                   std::span<const float> centres, uint16_t* codes, size_t stride);

/// A codebook [n][group] as searches read it: [group][padded n], see kernels/codebook_search.h.
struct TransposedBook {
  TransposedBook(std::span<const float> centres, size_t group);
  size_t n, padded;
  std::vector<float> values;
};

}  // namespace mneme
