#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mneme::ann {

struct ClusteringOptions {
  size_t leaf = 8;         ///< Rows of a cluster at the end, on average.
  size_t branches = 32;    ///< Clusters that one is split into, at most.
  size_t iterations = 12;  ///< Of k-means, on a sample.
  size_t sample = 1000;    ///< Rows that k-means looks at.
  float balance = 0.3f;    ///< Weight of the penalty for large clusters; 0 is plain k-means.
  uint64_t seed = 1;
};

/// Centres [n_clusters, dimension] of clusters of about options.leaf rows each.
///
/// Hierarchical balanced clustering as in SPANN (arXiv 2111.08566, section 3.2.1): a cluster of n rows is split into
/// k = min(branches, max(2, n / leaf)) by k-means, and so are its parts, until none has more than 1.75 leaf rows. While
/// the centres move, a row x of a sample goes to the cluster c with the least
///
///   d2(x, centre c) + lambda * rows already in c,     lambda = balance * mean d2(x, own centre) / (sample / k)
///
/// so that a cluster of average size costs `balance` times the mean distance. In the end all rows go to the nearest
/// centre. Rows that are all equal stay one cluster. Deterministic in the seed, whatever the number of threads.
///
/// Not here: the medoids of the official code. A head is a way-point and not an element of the index, so the mean
/// serves, and heads may be made and dropped without touching vectors.
std::vector<float> balanced_centres(std::span<const float> rows, size_t dimension, const ClusteringOptions& options);

/// Splits rows in two parts of similar size (neither under a quarter) by balanced 2-means. centres: [2, dimension];
/// part[i] in {0, 1}. Returns false when all rows are equal; then nothing was written.
bool split_in_two(std::span<const float> rows, size_t dimension, uint64_t seed, std::span<float> centres,
                  std::span<uint8_t> part);

}  // namespace mneme::ann
