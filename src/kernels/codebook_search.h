#pragma once

#include <cstddef>
#include <cstdint>

/// Searches in codebooks, for encoders that choose vectors. A codebook lies transposed, [dims][n], with dims 1, 2, 4 or
/// 8 and n a multiple of kCodebookLanes; entries that fill it up are zeros. Each runs on the calling thread.
namespace mneme::kernels {

constexpr size_t kCodebookLanes = 16;

/// The dispatch table of codebook kernels; one per target.
struct CodebookOps {
  const char* target;  ///< "scalar", "avx2", "avx512", "neon"

  /// out[k] = c_k^T A c_k for each entry; A is symmetric [dims][dims].
  void (*squares)(const float* book, size_t dims, size_t n, const float* a, float* out);
  /// Index of the entry with the least constant[k] + slope . c_k, the first of equal ones; *least is that value.
  /// Entries that must not be chosen have a constant of infinity. slope has `dims` floats.
  size_t (*least)(const float* book, size_t dims, size_t n, const float* constant, const float* slope, float* least);
  /// out[k] = constant[k] + slope . c_k for each entry.
  void (*values)(const float* book, size_t dims, size_t n, const float* constant, const float* slope, float* out);
  /// y[c] += sum over i < dims of factors[i] * rows[i * stride + c], c < n (any n)
  void (*add_rows)(const float* rows, size_t stride, size_t dims, const float* factors, size_t n, float* y);
};

/// The table of the best target of this processor, or of MNEME_CPU; see vector_ops().
const CodebookOps& codebook_ops();

}  // namespace mneme::kernels
