#pragma once

#include <cstddef>
#include <cstdint>

/// Vector loops of the training ops. The float versions are SIMD (chosen for the processor at start); the double versions
/// are plain loops, the reference that gradient checks run on. All run on the calling thread; outputs may equal inputs.
namespace mneme::train {

float dot(const float* a, const float* b, size_t n);
double dot(const double* a, const double* b, size_t n);

float max_of(const float* x, size_t n);
double max_of(const double* x, size_t n);

/// y = a + b
void add(const float* a, const float* b, size_t n, float* y);
void add(const double* a, const double* b, size_t n, double* y);

/// y += factor * x
void add_scaled(const float* x, float factor, size_t n, float* y);
void add_scaled(const double* x, double factor, size_t n, double* y);

/// y = factor * x
void scale(const float* x, float factor, size_t n, float* y);
void scale(const double* x, double factor, size_t n, double* y);

/// y = a * b * factor
void multiply_scaled(const float* a, const float* b, float factor, size_t n, float* y);
void multiply_scaled(const double* a, const double* b, double factor, size_t n, double* y);

/// y += a * b * factor
void add_product(const float* a, const float* b, float factor, size_t n, float* y);
void add_product(const double* a, const double* b, double factor, size_t n, double* y);

/// sum of a * b * c
float dot3(const float* a, const float* b, const float* c, size_t n);
double dot3(const double* a, const double* b, const double* c, size_t n);

/// x = exp(x * factor - shift); returns the sum of the results.
float exp_shifted(float* x, float factor, float shift, size_t n);
double exp_shifted(double* x, double factor, double shift, size_t n);

/// d = p * (d - delta) * factor: the gradient of softmax scores.
void softmax_backward(const float* p, float delta, float factor, size_t n, float* d);
void softmax_backward(const double* p, double delta, double factor, size_t n, double* d);

/// y = gate * sigmoid(gate) * up
void swiglu(const float* gate, const float* up, size_t n, float* y);
void swiglu(const double* gate, const double* up, size_t n, double* y);

/// Gradients of swiglu(): d_gate and d_up from d_y.
void swiglu_backward(const float* gate, const float* up, const float* d_y, size_t n, float* d_gate, float* d_up);
void swiglu_backward(const double* gate, const double* up, const double* d_y, size_t n, double* d_gate, double* d_up);

/// Rotates pairs (x[2i], x[2i+1]) by angle i; `direction` is 1 or -1 (the inverse, which is also the gradient).
void rotate_pairs(const float* x, const float* cosines, const float* sines, float direction, size_t n_pairs, float* y);
void rotate_pairs(const double* x, const double* cosines, const double* sines, double direction, size_t n_pairs,
                  double* y);

/// Rounds to bfloat16, nearest even.
void to_bf16(const float* x, size_t n, uint16_t* y);

/// One AdamW step on n values: m and v are the moments, `rate` the learning rate with bias correction folded in,
/// `decay` the factor lr * weight_decay, grad_scale multiplies the gradient first (clipping).
struct AdamStep {
  float beta1, beta2, eps, rate, decay, grad_scale;
};
void adam_update(const AdamStep& step, const float* grad, size_t n, float* weight, float* m, float* v);

}  // namespace mneme::train
