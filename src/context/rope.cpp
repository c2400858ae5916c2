#include "context/rope.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

#include "kernels/vector_ops.h"

namespace mneme {
namespace {

/// YaRN's border dimension: the pair whose wavelength makes n turns over the trained context.
double yarn_border(const RopeParameters& p, double turns) {
  return static_cast<double>(p.n_rot) * std::log(p.original_context / (2 * std::numbers::pi * turns)) /
         (2 * std::log(p.base));
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

RopeRuns::RopeRuns(const RopeSpec* spec, size_t longest) : spec_(spec) {
  if (spec == nullptr || spec->pairing == RopeSpec::Pairing::kNone) {
    spec_ = nullptr;
    return;
  }
  for (size_t step = 0; step < longest; ++step) {
    for (const float frequency : spec->frequency) {
      const double angle = static_cast<double>(step) * static_cast<double>(frequency);
      cosines_.push_back(static_cast<float>(std::cos(angle)));
      sines_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

void RopeRuns::turn(float* rows, size_t stride, size_t n, int64_t position, bool back) const {
  if (spec_ == nullptr) return;
  const size_t n_pairs = spec_->n_pairs();
  assert(n * n_pairs <= cosines_.size());
  const float magnitude = back ? 1 / spec_->magnitude : spec_->magnitude, sign = back ? -1.0f : 1.0f;
  std::vector<float> angles(4 * n_pairs);
  float* const first_cosine = angles.data();
  float* const first_sine = first_cosine + n_pairs;
  float* const cosine = first_sine + n_pairs;
  float* const sine = cosine + n_pairs;
  for (size_t i = 0; i < n_pairs; ++i) {
    // In double down to one turn: see RopeAngles.
    const double angle = std::remainder(static_cast<double>(position) * static_cast<double>(spec_->frequency[i]),
                                        2 * std::numbers::pi);
    first_cosine[i] = magnitude * std::cos(static_cast<float>(angle));
    first_sine[i] = magnitude * std::sin(static_cast<float>(angle));
  }
  const kernels::VectorOps& ops = kernels::vector_ops();
  const auto rotate = spec_->pairing == RopeSpec::Pairing::kHalves ? ops.rope_halves : ops.rope_interleaved;
  for (size_t t = 0; t < n; ++t) {
    const float* const step_cosine = cosines_.data() + t * n_pairs;
    const float* const step_sine = sines_.data() + t * n_pairs;
    for (size_t i = 0; i < n_pairs; ++i) {
      cosine[i] = first_cosine[i] * step_cosine[i] - first_sine[i] * step_sine[i];
      sine[i] = sign * (first_sine[i] * step_cosine[i] + first_cosine[i] * step_sine[i]);
    }
    rotate(rows + t * stride, cosine, sine, n_pairs);
  }
}

}  // namespace mneme
