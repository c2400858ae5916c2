#include "tensor/scale_fit.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "tensor/block_fields.h"

namespace mneme::codecs {
namespace {

/// Independent partial sums, so that a compiler may keep them in one vector register.
constexpr size_t kLanes = 8;

double total(const float lanes[kLanes]) {
  double sum = 0.0;
  for (size_t j = 0; j < kLanes; ++j) sum += static_cast<double>(lanes[j]);
  return sum;
}

/// Sums over a sub-block that do not depend on the codes.
struct FixedSums {
  double w, x, x2;
};

template <size_t N>
FixedSums fixed_sums(const float* x, const float* weights) {
  float w[kLanes] = {}, wx[kLanes] = {}, wx2[kLanes] = {};
  for (size_t i = 0; i < N; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float product = weights[i + j] * x[i + j];
      w[j] += weights[i + j];
      wx[j] += product;
      wx2[j] += product * x[i + j];
    }
  }
  return {total(w), total(wx), total(wx2)};
}

/// Weighted sums of q, q^2 and q * x for the codes q = round(x * inverse + shift) within [low, high].
struct CodeSums {
  double q, q2, qx;
};

template <size_t N>
CodeSums code_sums(const float* x, const float* weights, float inverse, float shift, float low, float high) {
  float wq[kLanes] = {}, wq2[kLanes] = {}, wqx[kLanes] = {};
  for (size_t i = 0; i < N; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float q = round_small(limit(x[i + j] * inverse + shift, low, high));
      const float product = weights[i + j] * q;
      wq[j] += product;
      wq2[j] += product * q;
      wqx[j] += product * x[i + j];
    }
  }
  return {total(wq), total(wq2), total(wqx)};
}

struct Solution {
  double scale = 0.0, minimum = 0.0, error = 0.0;
};

/// Best scale and minimum for given codes; the minimum is kept >= 0 unless it is free.
Solution solve_affine(const FixedSums& fixed, const CodeSums& codes, bool free_minimum) {
  Solution best;
  const double determinant = fixed.w * codes.q2 - codes.q * codes.q;
  if (determinant > 1e-9 * fixed.w * codes.q2) {
    best.scale = (fixed.w * codes.qx - fixed.x * codes.q) / determinant;
    best.minimum = (codes.q * codes.qx - codes.q2 * fixed.x) / determinant;
  } else {
    best.minimum = fixed.w > 0.0 ? -fixed.x / fixed.w : 0.0;
  }
  if (best.minimum < 0.0 && !free_minimum) {
    best.minimum = 0.0;
    best.scale = codes.q2 > 0.0 ? codes.qx / codes.q2 : 0.0;
  }
  best.scale = std::max(best.scale, 0.0);
  best.error = fixed.x2 + best.scale * best.scale * codes.q2 + best.minimum * best.minimum * fixed.w -
               2.0 * (best.scale * codes.qx - best.minimum * fixed.x + best.scale * best.minimum * codes.q);
  return best;
}

float nearest_half(float v) {
  return f16_to_f32(f32_to_f16(v));
}

int round_to_int(float v, int low, int high) {
  return static_cast<int>(round_small(limit(v, static_cast<float>(low), static_cast<float>(high))));
}

template <size_t N>
double weighted_error(const float* x, const float* weights, float scale, float minimum, float low, float high) {
  const float inverse = inverse_or_zero(scale), shift = minimum * inverse;
  float sums[kLanes] = {};
  for (size_t i = 0; i < N; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float q = round_small(limit(x[i + j] * inverse + shift, low, high));
      const float difference = x[i + j] + minimum - scale * q;
      sums[j] += weights[i + j] * difference * difference;
    }
  }
  return total(sums);
}

}  // namespace

void error_weights(const float* x, const float* importance, size_t n, float* weights) {
  float sum = 0.0f;
  if (importance != nullptr) {
    for (size_t i = 0; i < n; ++i) sum += importance[i];
    for (size_t i = 0; i < n; ++i) weights[i] = importance[i];
  } else {
    float squares = 0.0f;
    for (size_t i = 0; i < n; ++i) squares += x[i] * x[i];
    const float rms = std::sqrt(squares / static_cast<float>(n));
    for (size_t i = 0; i < n; ++i) weights[i] = rms + std::fabs(x[i]);
    sum = rms * static_cast<float>(n);
  }
  const float least = sum > 0.0f ? 1e-4f * sum / static_cast<float>(n) : 1.0f;
  for (size_t i = 0; i < n; ++i) weights[i] += least;
}

template <size_t N>
AffineFit fit_affine(const float* x, const float* weights, int max_code, bool free_minimum) {
  float low = x[0], high = x[0];
  for (size_t i = 1; i < N; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  if (!free_minimum) low = std::min(low, 0.0f);
  const float range = high - low;
  if (!(range > 0.0f)) return {0.0f, -low};
  const FixedSums fixed = fixed_sums<N>(x, weights);
  const auto top = static_cast<float>(max_code);
  Solution best;
  bool found = false;
  const auto consider = [&](float inverse, float minimum) {
    const CodeSums codes = code_sums<N>(x, weights, inverse, minimum * inverse, 0.0f, top);
    const Solution next = solve_affine(fixed, codes, free_minimum);
    if (next.scale > 0.0 && (!found || next.error < best.error)) {
      best = next;
      found = true;
      return true;
    }
    return false;
  };
  // Scales below the spanning one clip the ends; few codes allow more clipping.
  for (int step = -10; step <= 10; ++step) consider((top + 0.1f * static_cast<float>(step)) / range, -low);
  if (!found) return {range / top, -low};
  for (int round = 0; round < 3; ++round) {
    if (!consider(static_cast<float>(1.0 / best.scale), static_cast<float>(best.minimum))) break;
  }
  return {static_cast<float>(best.scale), static_cast<float>(best.minimum)};
}

template AffineFit fit_affine<16>(const float*, const float*, int, bool);
template AffineFit fit_affine<32>(const float*, const float*, int, bool);

template <size_t N>
float fit_symmetric(const float* x, const float* weights, int low, int high) {
  const float peak = signed_peak(x, N);
  if (peak == 0.0f) return 0.0f;
  const auto bottom = static_cast<float>(low), top = static_cast<float>(high);
  double best_gain = 0.0, best_scale = 0.0;
  const auto consider = [&](float inverse) {
    const CodeSums codes = code_sums<N>(x, weights, inverse, 0.0f, bottom, top);
    // Error = sum of w x^2 - gain.
    const double gain = codes.q2 > 0.0 ? codes.qx * codes.qx / codes.q2 : 0.0;
    if (gain <= best_gain) return false;
    best_gain = gain;
    best_scale = codes.qx / codes.q2;
    return true;
  };
  for (int step = -9; step <= 9; ++step) {
    consider((bottom + 0.1f * static_cast<float>(step)) / peak);
    consider((top + 0.1f * static_cast<float>(step)) / peak);
  }
  if (best_scale == 0.0) return peak / bottom;
  for (int round = 0; round < 3; ++round) {
    if (!consider(static_cast<float>(1.0 / best_scale))) break;
  }
  return static_cast<float>(best_scale);
}

template float fit_symmetric<16>(const float*, const float*, int, int);
template float fit_symmetric<32>(const float*, const float*, int, int);

template <size_t SubN>
void fit_affine_super(const float* x, const float* importance, int max_code, int max_scale, AffineSuper<SubN>& out) {
  constexpr size_t kSubs = kSuper / SubN;
  float weights[kSuper];
  error_weights(x, importance, kSuper, weights);
  AffineFit fits[kSubs];
  float peak_scale = 0.0f, peak_minimum = 0.0f;
  for (size_t k = 0; k < kSubs; ++k) {
    fits[k] = fit_affine<SubN>(x + SubN * k, weights + SubN * k, max_code, false);
    peak_scale = std::max(peak_scale, fits[k].scale);
    peak_minimum = std::max(peak_minimum, fits[k].minimum);
  }
  const auto top = static_cast<float>(max_code);
  out.d = nearest_half(peak_scale / static_cast<float>(max_scale));
  out.dmin = nearest_half(peak_minimum / static_cast<float>(max_scale));

  // With the shared units fixed, each sub-block looks again among the neighbouring integers: a rounded minimum may want
  // another scale.
  for (size_t k = 0; k < kSubs; ++k) {
    const float* xs = x + SubN * k;
    const float* ws = weights + SubN * k;
    const int scale = round_to_int(fits[k].scale * inverse_or_zero(out.d), 0, max_scale);
    const int minimum = round_to_int(fits[k].minimum * inverse_or_zero(out.dmin), 0, max_scale);
    double least = 0.0;
    bool found = false;
    for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, max_scale); ++s) {
      for (int m = std::max(minimum - 1, 0); m <= std::min(minimum + 1, max_scale); ++m) {
        const double error =
            weighted_error<SubN>(xs, ws, out.d * static_cast<float>(s), out.dmin * static_cast<float>(m), 0.0f, top);
        if (!found || error < least) {
          least = error;
          out.scales[k] = s;
          out.minima[k] = m;
          found = true;
        }
      }
    }
  }

  // Then the units are solved for the integers found: x ~ d * a - dmin * b with a = scale * code, b = minimum.
  double aa = 0.0, ab = 0.0, bb = 0.0, ax = 0.0, bx = 0.0;
  for (size_t k = 0; k < kSubs; ++k) {
    const float scale = out.d * static_cast<float>(out.scales[k]);
    const float inverse = inverse_or_zero(scale);
    const float shift = out.dmin * static_cast<float>(out.minima[k]) * inverse;
    const FixedSums fixed = fixed_sums<SubN>(x + SubN * k, weights + SubN * k);
    const CodeSums codes = code_sums<SubN>(x + SubN * k, weights + SubN * k, inverse, shift, 0.0f, top);
    const double s = out.scales[k], m = out.minima[k];
    aa += s * s * codes.q2;
    ab += s * m * codes.q;
    bb += m * m * fixed.w;
    ax += s * codes.qx;
    bx += m * fixed.x;
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant > 1e-9 * aa * bb) {
    const double d = (ax * bb - bx * ab) / determinant, dmin = (ax * ab - bx * aa) / determinant;
    if (d > 0.0 && dmin >= 0.0) {
      out.d = nearest_half(static_cast<float>(d));
      out.dmin = nearest_half(static_cast<float>(dmin));
    }
  } else if (aa > 0.0 && bb == 0.0 && ax > 0.0) {
    out.d = nearest_half(static_cast<float>(ax / aa));
  }

  for (size_t k = 0; k < kSubs; ++k) {
    const float inverse = inverse_or_zero(out.d * static_cast<float>(out.scales[k]));
    const float shift = out.dmin * static_cast<float>(out.minima[k]) * inverse;
    for (size_t i = SubN * k; i < SubN * (k + 1); ++i) {
      out.codes[i] = static_cast<uint8_t>(round_small(limit(x[i] * inverse + shift, 0.0f, top)));
    }
  }
}

template void fit_affine_super<16>(const float*, const float*, int, int, AffineSuper<16>&);
template void fit_affine_super<32>(const float*, const float*, int, int, AffineSuper<32>&);

void fit_symmetric_super(const float* x, const float* importance, int low, int high, int min_scale, int max_scale,
                         SymmetricSuper& out) {
  constexpr size_t kSub = 16;
  float weights[kSuper];
  error_weights(x, importance, kSuper, weights);
  float scales[16];
  for (size_t k = 0; k < 16; ++k) scales[k] = fit_symmetric<kSub>(x + kSub * k, weights + kSub * k, low, high);
  const auto bottom = static_cast<float>(low), top = static_cast<float>(high);
  // The scale of largest magnitude takes the negative end, which reaches one further.
  out.d = nearest_half(signed_peak(scales, 16) / static_cast<float>(min_scale));

  double aa = 0.0, ax = 0.0;
  for (size_t k = 0; k < 16; ++k) {
    const float* xs = x + kSub * k;
    const float* ws = weights + kSub * k;
    const int scale = round_to_int(scales[k] * inverse_or_zero(out.d), min_scale, max_scale);
    double least = 0.0;
    bool found = false;
    for (int s = std::max(scale - 1, min_scale); s <= std::min(scale + 1, max_scale); ++s) {
      const double error = weighted_error<kSub>(xs, ws, out.d * static_cast<float>(s), 0.0f, bottom, top);
      if (!found || error < least) {
        least = error;
        out.scales[k] = s;
        found = true;
      }
    }
    const float inverse = inverse_or_zero(out.d * static_cast<float>(out.scales[k]));
    const CodeSums codes = code_sums<kSub>(xs, ws, inverse, 0.0f, bottom, top);
    aa += static_cast<double>(out.scales[k]) * out.scales[k] * codes.q2;
    ax += static_cast<double>(out.scales[k]) * codes.qx;
  }
  if (aa > 0.0 && ax != 0.0) out.d = nearest_half(static_cast<float>(ax / aa));

  for (size_t k = 0; k < 16; ++k) {
    const float inverse = inverse_or_zero(out.d * static_cast<float>(out.scales[k]));
    for (size_t i = kSub * k; i < kSub * (k + 1); ++i) {
      out.codes[i] = static_cast<int8_t>(round_small(limit(x[i] * inverse, bottom, top)));
    }
  }
}

}  // namespace mneme::codecs
