#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mneme {

/// Rows x [C] kept as features z = x B^T [rank] in a basis B [rank, C] of orthonormal rows, so that x is about z B.
/// Keys and values of all kv heads together have far fewer directions than channels, keys as long as they are not
/// rotated (ShadowKV, arXiv 2410.21465; CSKV, arXiv 2409.10593).
///
/// The least ||X - X B^T B|| over all B has the eigenvectors of X^T X with the largest eigenvalues as rows: no singular
/// value decomposition of the tall X is needed.
struct FeatureMap {
  size_t channels = 0, rank = 0;

  bool operator==(const FeatureMap&) const = default;

  size_t basis_bytes() const { return rank * channels * sizeof(float); }
  /// Bytes of the features of one row, f16.
  size_t row_bytes() const { return rank * 2; }

  /// features [n, rank] f16 of rows [n, channels].
  void encode(const float* basis, const float* rows, size_t n, std::byte* features) const;
  /// Channels [begin, begin + count) of a basis side by side, [rank, count]: the basis of a map of `count` channels.
  void cut(const float* basis, size_t begin, size_t count, float* out) const;
  /// out [n, count] = channels [begin, begin + count) of the rows that `features` [n, rank] stand for; rows of out
  /// `out_stride` floats apart. A row does not depend on the rows beside it.
  void decode(const float* basis, const std::byte* features, size_t n, size_t begin, size_t count, float* out,
              size_t out_stride) const;
};

/// Second moments X^T X [C, C] of rows, and the basis that loses least of them.
class SecondMoments {
 public:
  /// Bytes that moments and basis() take.
  static uint64_t working_bytes(const FeatureMap& map);
  explicit SecondMoments(size_t channels) : channels_(channels), moments_(channels * channels) {}

  size_t channels() const { return channels_; }

  /// Adds rows [n, channels]. Parallel inside.
  void add(const float* rows, size_t n);
  /// basis [rank, channels]; all channels as they are when rank is their number. Throws Error(kInvalidArgument) when a
  /// row was not finite.
  void basis(size_t rank, float* basis) const;
  /// Square root of the share of the energy that a basis leaves out: ||X - X B^T B|| / ||X||.
  double error_of(const float* basis, size_t rank) const;

 private:
  size_t channels_;
  std::vector<float> moments_;
};

}  // namespace mneme
