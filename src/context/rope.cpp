#include "context/rope.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>
#include <utility>

#include "kernels/vector_ops.h"

namespace mneme {
namespace {

/// YaRN's border dimension: the pair whose wavelength makes n turns over the trained context.
double yarn_border(const RopeParameters& p, double turns) {
  return static_cast<double>(p.n_rot) * std::log(p.original_context / (2 * std::numbers::pi * turns)) /
         (2 * std::log(p.base));
}

std::shared_ptr<const std::vector<float>> make_digits(const std::vector<float>& frequency) {
  constexpr size_t kTurns = RopeSpec::kDigits << RopeSpec::kDigitBits;
  const size_t n_pairs = frequency.size();
  std::vector<float> turns(2 * kTurns * n_pairs);
  for (size_t j = 0; j < kTurns; ++j) {
    const size_t k = j >> RopeSpec::kDigitBits, digit = j % (size_t{1} << RopeSpec::kDigitBits);
    const double position = std::ldexp(static_cast<double>(digit), static_cast<int>(k * RopeSpec::kDigitBits));
    for (size_t i = 0; i < n_pairs; ++i) {
      const double angle = position * static_cast<double>(frequency[i]);
      turns[j * n_pairs + i] = static_cast<float>(std::cos(angle));
      turns[(kTurns + j) * n_pairs + i] = static_cast<float>(std::sin(angle));
    }
  }
  return std::make_shared<const std::vector<float>>(std::move(turns));
}

}  // namespace

RopeSpec make_rope(const RopeParameters& p) {
  assert(p.n_rot % 2 == 0);
  RopeSpec spec;
  spec.pairing = p.pairing;
  const size_t n_pairs = p.pairing == RopeSpec::Pairing::kNone ? 0 : p.n_rot / 2;
  spec.frequency.resize(n_pairs);
  constexpr double kBetaFast = 32, kBetaSlow = 1;
  double low = 0, high = 0;
  if (p.yarn) {
    low = std::max(0.0, std::floor(yarn_border(p, kBetaFast)));
    high = std::min(static_cast<double>(p.n_rot) - 1, std::ceil(yarn_border(p, kBetaSlow)));
  }
  for (size_t i = 0; i < n_pairs; ++i) {
    double frequency = std::pow(p.base, -2.0 * static_cast<double>(i) / static_cast<double>(p.n_rot));
    if (!p.factors.empty()) frequency /= static_cast<double>(p.factors[i]);
    const double interpolated = frequency * p.frequency_scale;
    if (p.yarn) {
      const double ramp = 1 - std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
      frequency = interpolated * (1 - ramp) + frequency * ramp;
    } else {
      frequency = interpolated;
    }
    spec.frequency[i] = static_cast<float>(frequency);
  }
  double magnitude = p.attention_factor;
  if (p.yarn) magnitude *= 1 + 0.1 * std::log(1 / p.frequency_scale);
  spec.magnitude = static_cast<float>(magnitude);
  spec.digits = make_digits(spec.frequency);
  return spec;
}

RopeAngles::RopeAngles(const RopeSpec& spec, std::span<const int32_t> positions)
    : spec_(&spec), pairing_(spec.pairing), n_pairs_(spec.n_pairs()) {
  cosines_.resize(positions.size() * n_pairs_);
  sines_.resize(positions.size() * n_pairs_);
  for (size_t t = 0; t < positions.size(); ++t) {
    for (size_t i = 0; i < n_pairs_; ++i) {
      // In double: the angle of a late position has many turns, and f32 would lose their fraction.
      const double angle = static_cast<double>(positions[t]) * static_cast<double>(spec.frequency[i]);
      cosines_[t * n_pairs_ + i] = static_cast<float>(std::cos(angle)) * spec.magnitude;
      sines_[t * n_pairs_ + i] = static_cast<float>(std::sin(angle)) * spec.magnitude;
    }
  }
}

void RopeAngles::rotate(float* x, size_t n_heads, size_t head_dim, size_t token) const {
  if (pairing_ == RopeSpec::Pairing::kNone) return;
  const kernels::VectorOps& ops = kernels::vector_ops();
  const auto turn = pairing_ == RopeSpec::Pairing::kHalves ? ops.rope_halves : ops.rope_interleaved;
  for (size_t head = 0; head < n_heads; ++head) turn(x + head * head_dim, cosines(token), sines(token), n_pairs_);
}

namespace {

/// Cosines and sines of n_pairs angles.
struct Turns {
  const float *cosines, *sines;
};

Turns digit_turns(const RopeSpec& spec, size_t k, size_t digit) {
  const size_t n_pairs = spec.n_pairs(), n_turns = RopeSpec::kDigits << RopeSpec::kDigitBits;
  const float* const cosines = spec.digits->data() + ((k << RopeSpec::kDigitBits) + digit) * n_pairs;
  return {cosines, cosines + n_turns * n_pairs};
}

/// Adds the angles of b to those of cosines and sines.
void add_turns(Turns b, size_t n_pairs, float* cosines, float* sines) {
  for (size_t i = 0; i < n_pairs; ++i) {
    const float cosine = cosines[i] * b.cosines[i] - sines[i] * b.sines[i];
    sines[i] = sines[i] * b.cosines[i] + cosines[i] * b.sines[i];
    cosines[i] = cosine;
  }
}

}  // namespace

void RopeRuns::turn(float* rows, size_t stride, size_t n, int64_t position, bool back) const {
  if (spec_ == nullptr || spec_->pairing == RopeSpec::Pairing::kNone) return;
  constexpr int64_t kMask = (int64_t{1} << RopeSpec::kDigitBits) - 1;
  assert(position >= 0 && (position + static_cast<int64_t>(n)) >> RopeSpec::kDigits * RopeSpec::kDigitBits == 0);
  const size_t n_pairs = spec_->n_pairs();
  const float magnitude = back ? 1 / spec_->magnitude : spec_->magnitude;
  std::vector<float> angles(4 * n_pairs);
  float* const first_cosine = angles.data();
  float* const first_sine = first_cosine + n_pairs;
  float* const cosine = first_sine + n_pairs;
  float* const sine = cosine + n_pairs;
  const kernels::VectorOps& ops = kernels::vector_ops();
  const auto rotate = spec_->pairing == RopeSpec::Pairing::kHalves ? ops.rope_halves : ops.rope_interleaved;
  for (size_t t = 0; t < n; ++t, ++position) {
    if (t == 0 || (position & kMask) == 0) {  // all digits but the last
      std::fill_n(first_cosine, n_pairs, magnitude);
      std::fill_n(first_sine, n_pairs, 0.0f);
      for (size_t k = 1; k < RopeSpec::kDigits; ++k) {
        const auto digit = static_cast<size_t>(position >> k * RopeSpec::kDigitBits & kMask);
        if (digit != 0) add_turns(digit_turns(*spec_, k, digit), n_pairs, first_cosine, first_sine);
      }
    }
    std::copy_n(first_cosine, 2 * n_pairs, cosine);
    add_turns(digit_turns(*spec_, 0, static_cast<size_t>(position & kMask)), n_pairs, cosine, sine);
    if (back) ops.scale(sine, -1.0f, n_pairs, sine);
    rotate(rows + t * stride, cosine, sine, n_pairs);
  }
}

}  // namespace mneme
