#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mneme::ann {

struct MixtureOptions {
  size_t dimension = 128;
  size_t modes = 400;
  float least_spread = 0.1f, most_spread = 1.1f;
  float centre_scale = 0.5f;  ///< Standard deviation of a centre's coordinates.
  float decay = 8.0f;         ///< Coordinates in which the variance of a mode halves twice; 0: the same in all.
  uint64_t seed = 1;
};

/// Vectors for measuring indexes: a mixture of normal distributions as uneven as real embeddings are. Mode i has weight
/// 1 / (1 + 0.05 i), a spread of its own between the two given, and, where decay > 0, the variances
/// spread^2 / (1 + rank / decay)^2 in an order of coordinates of its own: about 3 decay dimensions carry a mode,
/// whatever the dimension of the space is. Row number r is always the same, whoever asks for it.
class VectorMixture {
 public:
  explicit VectorMixture(const MixtureOptions& options);
  /// Rows first, first + 1, ... into out [n, dimension].
  void rows(uint64_t first, std::span<float> out) const;

 private:
  MixtureOptions options_;
  std::vector<float> centres_;     ///< [modes, dimension]
  std::vector<float> deviations_;  ///< [modes, dimension]
  std::vector<double> up_to_;      ///< Sums of weights.
};

}  // namespace mneme::ann
