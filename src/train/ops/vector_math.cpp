#include "train/ops/vector_math.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/ops/vector_math.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace mneme::train {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

/// Runs body(offset, load, store) over whole vectors and once more over the rest with partial loads and stores.
template <class Body>
HWY_INLINE void for_vectors(size_t n, Body body) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    body([&](const float* p) HWY_ATTR { return hn::LoadU(d, p + i); },
         [&](V v, float* p) HWY_ATTR { hn::StoreU(v, d, p + i); });
  }
  if (i == n) return;
  const auto mask = hn::FirstN(d, n - i);
  HWY_ALIGN float in[HWY_MAX_BYTES / sizeof(float)];
  body(
      [&](const float* p) HWY_ATTR {
        for (size_t k = 0; k < lanes; ++k) in[k] = i + k < n ? p[i + k] : 0.0f;
        return hn::Load(d, in);
      },
      [&](V v, float* p) HWY_ATTR {
        HWY_ALIGN float out[HWY_MAX_BYTES / sizeof(float)];
        hn::Store(hn::IfThenElseZero(mask, v), d, out);
        for (size_t k = 0; i + k < n; ++k) p[i + k] = out[k];
      });
}

float dot_f32(const float* a, const float* b, size_t n) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  V s0 = hn::Zero(d), s1 = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), s1);
  }
  float rest = 0.0f;
  for (; i < n; ++i) rest += a[i] * b[i];
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(s0, s1))) + rest;
}

float dot3_f32(const float* a, const float* b, const float* c, size_t n) {
  const D d;
  V sum = hn::Zero(d);
  for_vectors(n, [&](auto load, auto) HWY_ATTR { sum = hn::MulAdd(hn::Mul(load(a), load(b)), load(c), sum); });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

float max_f32(const float* x, size_t n) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  V best = hn::Set(d, x[0]);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) best = hn::Max(best, hn::LoadU(d, x + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

void add_f32(const float* a, const float* b, size_t n, float* y) {
  for_vectors(n, [&](auto load, auto store) HWY_ATTR { store(hn::Add(load(a), load(b)), y); });
}

void add_scaled_f32(const float* x, float factor, size_t n, float* y) {
  const D d;
  const V f = hn::Set(d, factor);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR { store(hn::MulAdd(load(x), f, load(y)), y); });
}

void scale_f32(const float* x, float factor, size_t n, float* y) {
  const D d;
  const V f = hn::Set(d, factor);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(load(x), f), y); });
}

void multiply_scaled_f32(const float* a, const float* b, float factor, size_t n, float* y) {
  const D d;
  const V f = hn::Set(d, factor);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(hn::Mul(load(a), load(b)), f), y); });
}

void add_product_f32(const float* a, const float* b, float factor, size_t n, float* y) {
  const D d;
  const V f = hn::Set(d, factor);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR { store(hn::MulAdd(hn::Mul(load(a), load(b)), f, load(y)), y); });
}

float exp_shifted_f32(float* x, float factor, float shift, size_t n) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const V f = hn::Set(d, factor), s = hn::Set(d, -shift);
  V sum = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const V e = hn::Exp(d, hn::MulAdd(hn::LoadU(d, x + i), f, s));
    hn::StoreU(e, d, x + i);
    sum = hn::Add(sum, e);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) {
    x[i] = std::exp(x[i] * factor - shift);
    total += x[i];
  }
  return total;
}

void softmax_backward_f32(const float* p, float delta, float factor, size_t n, float* dp) {
  const D d;
  const V f = hn::Set(d, factor), shift = hn::Set(d, delta);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR {
    store(hn::Mul(hn::Mul(load(p), f), hn::Sub(load(dp), shift)), dp);
  });
}

HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(x))));
}

void swiglu_f32(const float* gate, const float* up, size_t n, float* y) {
  const D d;
  for_vectors(n, [&](auto load, auto store) HWY_ATTR {
    const V g = load(gate);
    store(hn::Mul(hn::Mul(g, sigmoid(d, g)), load(up)), y);
  });
}

void swiglu_backward_f32(const float* gate, const float* up, const float* d_y, size_t n, float* d_gate, float* d_up) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR {
    const V g = load(gate), u = load(up), dy = load(d_y);
    const V s = sigmoid(d, g);
    const V silu = hn::Mul(g, s);
    const V slope = hn::Mul(s, hn::Add(one, hn::Mul(g, hn::Sub(one, s))));
    store(hn::Mul(dy, silu), d_up);
    store(hn::Mul(hn::Mul(dy, u), slope), d_gate);
  });
}

void rotate_pairs_f32(const float* x, const float* cosines, const float* sines, float direction, size_t n_pairs, float* y) {
  for (size_t i = 0; i < n_pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1], c = cosines[i], s = sines[i] * direction;
    y[2 * i] = a * c - b * s;
    y[2 * i + 1] = a * s + b * c;
  }
}

void to_bf16_f32(const float* x, size_t n, uint16_t* y) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  const size_t lanes = hn::Lanes(d);
  const auto bias = hn::Set(du, 0x7FFFu), one = hn::Set(du, 1u);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto bits = hn::BitCast(du, hn::LoadU(d, x + i));
    const auto odd = hn::And(hn::ShiftRight<16>(bits), one);
    hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(hn::Add(bits, hn::Add(bias, odd)))), d16, y + i);
  }
  for (; i < n; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    y[i] = static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
}

void adam_update_f32(const AdamStep& step, const float* grad, size_t n, float* weight, float* m, float* v) {
  const D d;
  const V b1 = hn::Set(d, step.beta1), c1 = hn::Set(d, 1.0f - step.beta1);
  const V b2 = hn::Set(d, step.beta2), c2 = hn::Set(d, 1.0f - step.beta2);
  const V eps = hn::Set(d, step.eps), rate = hn::Set(d, -step.rate), keep = hn::Set(d, 1.0f - step.decay);
  const V gs = hn::Set(d, step.grad_scale);
  for_vectors(n, [&](auto load, auto store) HWY_ATTR {
    const V g = hn::Mul(load(grad), gs);
    const V m1 = hn::MulAdd(load(m), b1, hn::Mul(g, c1));
    const V v1 = hn::MulAdd(load(v), b2, hn::Mul(hn::Mul(g, g), c2));
    store(m1, m);
    store(v1, v);
    store(hn::MulAdd(hn::Div(m1, hn::Add(hn::Sqrt(v1), eps)), rate, hn::Mul(load(weight), keep)), weight);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme::train
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::train {

HWY_EXPORT(dot_f32);
HWY_EXPORT(dot3_f32);
HWY_EXPORT(max_f32);
HWY_EXPORT(add_f32);
HWY_EXPORT(add_scaled_f32);
HWY_EXPORT(scale_f32);
HWY_EXPORT(multiply_scaled_f32);
HWY_EXPORT(add_product_f32);
HWY_EXPORT(exp_shifted_f32);
HWY_EXPORT(softmax_backward_f32);
HWY_EXPORT(swiglu_f32);
HWY_EXPORT(swiglu_backward_f32);
HWY_EXPORT(rotate_pairs_f32);
HWY_EXPORT(to_bf16_f32);
HWY_EXPORT(adam_update_f32);

float dot(const float* a, const float* b, size_t n) { return HWY_DYNAMIC_DISPATCH(dot_f32)(a, b, n); }
float dot3(const float* a, const float* b, const float* c, size_t n) {
  return HWY_DYNAMIC_DISPATCH(dot3_f32)(a, b, c, n);
}
float max_of(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(max_f32)(x, n); }
void add(const float* a, const float* b, size_t n, float* y) { HWY_DYNAMIC_DISPATCH(add_f32)(a, b, n, y); }
void add_scaled(const float* x, float factor, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(add_scaled_f32)(x, factor, n, y);
}
void scale(const float* x, float factor, size_t n, float* y) { HWY_DYNAMIC_DISPATCH(scale_f32)(x, factor, n, y); }
void multiply_scaled(const float* a, const float* b, float factor, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(multiply_scaled_f32)(a, b, factor, n, y);
}
void add_product(const float* a, const float* b, float factor, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(add_product_f32)(a, b, factor, n, y);
}
float exp_shifted(float* x, float factor, float shift, size_t n) {
  return HWY_DYNAMIC_DISPATCH(exp_shifted_f32)(x, factor, shift, n);
}
void softmax_backward(const float* p, float delta, float factor, size_t n, float* d) {
  HWY_DYNAMIC_DISPATCH(softmax_backward_f32)(p, delta, factor, n, d);
}
void swiglu(const float* gate, const float* up, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(swiglu_f32)(gate, up, n, y);
}
void swiglu_backward(const float* gate, const float* up, const float* d_y, size_t n, float* d_gate, float* d_up) {
  HWY_DYNAMIC_DISPATCH(swiglu_backward_f32)(gate, up, d_y, n, d_gate, d_up);
}
void rotate_pairs(const float* x, const float* cosines, const float* sines, float direction, size_t n_pairs, float* y) {
  HWY_DYNAMIC_DISPATCH(rotate_pairs_f32)(x, cosines, sines, direction, n_pairs, y);
}
void to_bf16(const float* x, size_t n, uint16_t* y) { HWY_DYNAMIC_DISPATCH(to_bf16_f32)(x, n, y); }
void adam_update(const AdamStep& step, const float* grad, size_t n, float* weight, float* m, float* v) {
  HWY_DYNAMIC_DISPATCH(adam_update_f32)(step, grad, n, weight, m, v);
}

}  // namespace mneme::train
#endif  // HWY_ONCE
