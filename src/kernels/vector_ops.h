#pragma once

#include <cstddef>

/// Element-wise and reduction kernels on f32 vectors. Each runs on the calling thread; results are the same on all
/// targets to 1e-5 relative.
namespace mneme::kernels {

/// The dispatch table of vector kernels; one per target (scalar, avx2, avx512, neon). y may equal x unless said otherwise.
struct VectorOps {
  const char* target;  ///< "scalar", "avx2", "avx512", "neon"

  float (*dot)(const float* a, const float* b, size_t n);
  void (*add)(const float* a, const float* b, size_t n, float* y);           ///< y = a + b
  void (*multiply)(const float* a, const float* b, size_t n, float* y);      ///< y = a * b
  void (*scale)(const float* x, float factor, size_t n, float* y);           ///< y = factor * x
  void (*add_scaled)(const float* x, float factor, size_t n, float* y);      ///< y += factor * x
  /// y = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, size_t n, float* y);
  /// y = (x - mean) / sqrt(variance + eps) * weight + bias; bias may be null
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, size_t n, float* y);
  void (*silu_multiply)(const float* gate, const float* up, size_t n, float* y);       ///< y = silu(gate) * up
  void (*gelu_multiply)(const float* gate, const float* up, size_t n, float* y);       ///< y = gelu_tanh(gate) * up
  void (*relu_multiply)(const float* gate, const float* up, size_t n, float* y);       ///< y = max(gate, 0) * up
  void (*gelu)(const float* x, size_t n, float* y);                                    ///< tanh form
  void (*softmax)(const float* x, size_t n, float* y);                                 ///< y = softmax(x)
  void (*softcap)(const float* x, float cap, size_t n, float* y);                      ///< y = cap * tanh(x / cap)
  /// Rotates pairs (x[i], x[i + n_pairs]) ("neox" halves) by the angles whose cosines and sines are given, n_pairs each.
  void (*rope_halves)(float* x, const float* cosines, const float* sines, size_t n_pairs);
  /// Rotates pairs (x[2i], x[2i + 1]).
  void (*rope_interleaved)(float* x, const float* cosines, const float* sines, size_t n_pairs);
  void (*f32_to_f16)(const float* x, size_t n, void* y);
  void (*f32_to_bf16)(const float* x, size_t n, void* y);
  void (*f16_to_f32)(const void* x, size_t n, float* y);
  void (*bf16_to_f32)(const void* x, size_t n, float* y);
};

/// The table of the best target of this processor, or of MNEME_CPU=scalar|avx2|avx512|neon; chosen once.
const VectorOps& vector_ops();

}  // namespace mneme::kernels
