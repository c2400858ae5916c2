#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace mneme {

/// Rotary position embedding of one kind of layer (RoFormer, arXiv 2104.09864): pair i of a head at position p turns by
/// p * frequency[i]. Scaling rules (linear, YaRN, llama3, longrope) are already inside the frequencies and the magnitude.
struct RopeSpec {
  enum class Pairing : uint8_t {
    kNone,         ///< Positions do not enter the attention.
    kInterleaved,  ///< Pairs (x[2i], x[2i+1]).
    kHalves,       ///< Pairs (x[i], x[i + n_pairs]) of the first 2 * n_pairs dimensions ("neox").
  };
  Pairing pairing = Pairing::kNone;
  std::vector<float> frequency;  ///< [n_pairs] radians per position; dimensions from 2 * n_pairs on pass through.
  float magnitude = 1.0f;        ///< Multiplies cosine and sine.
  /// [kDigits][64][n_pairs] cosines, then as many sines, of d * 64^k * frequency[i] for digit k = d of a position.
  std::shared_ptr<const std::vector<float>> digits;

  static constexpr size_t kDigitBits = 6, kDigits = 6;

  size_t n_pairs() const { return frequency.size(); }
};

/// Parameters from which a RopeSpec is made.
struct RopeParameters {
  RopeSpec::Pairing pairing = RopeSpec::Pairing::kInterleaved;
  size_t n_rot = 0;                ///< Rotated dimensions, even.
  double base = 10000.0;
  double frequency_scale = 1.0;    ///< 1 / factor of linear or YaRN scaling.
  bool yarn = false;
  double original_context = 0;     ///< Trained context, for YaRN.
  double attention_factor = 1.0;   ///< Magnitude factor of YaRN and longrope.
  std::span<const float> factors;  ///< Divisors per pair (llama3, longrope); empty: none.
};

/// frequency[i] = base^(-2i / n_rot) with the scaling of RopeParameters applied (YaRN: arXiv 2309.00071).
RopeSpec make_rope(const RopeParameters& parameters);

/// Cosines and sines for the tokens of one batch, [n_tokens, n_pairs] each, made once and used by all layers of a kind.
class RopeAngles {
 public:
  RopeAngles(const RopeSpec& spec, std::span<const int32_t> positions);
  RopeAngles() = default;

  const float* cosines(size_t token) const { return cosines_.data() + token * n_pairs_; }
  const float* sines(size_t token) const { return sines_.data() + token * n_pairs_; }

  /// Rotates `n_heads` vectors of `head_dim` floats of one token in place.
  void rotate(float* x, size_t n_heads, size_t head_dim, size_t token) const;
  /// What the angles were made from; lives as long as the model.
  const RopeSpec& spec() const { return *spec_; }

 private:
  const RopeSpec* spec_ = nullptr;
  RopeSpec::Pairing pairing_ = RopeSpec::Pairing::kNone;
  size_t n_pairs_ = 0;
  std::vector<float> cosines_, sines_;
};

/// Rotations of runs of consecutive positions anywhere, for stores that keep keys unrotated. Sines and cosines are put
/// together from those of the digits of a position by the addition theorem, exact to a few units of f32.
class RopeRuns {
 public:
  /// `spec` (null: no rotation) outlives this.
  explicit RopeRuns(const RopeSpec* spec) : spec_(spec) {}

  /// Rotates n rows, `stride` floats apart, by the angles of `position` (below 2^36), `position` + 1, ...
  void rotate(float* rows, size_t stride, size_t n, int64_t position) const { turn(rows, stride, n, position, false); }
  /// The inverse, the magnitude included.
  void rotate_back(float* rows, size_t stride, size_t n, int64_t position) const { turn(rows, stride, n, position, true); }

 private:
  void turn(float* rows, size_t stride, size_t n, int64_t position, bool back) const;

  const RopeSpec* spec_;
};

}  // namespace mneme
