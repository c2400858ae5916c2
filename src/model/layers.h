#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "budget/buffer.h"
#include "kernels/matmul.h"
#include "tensor/tensor.h"

namespace mneme {

class Workspace;

/// What adapters add to a product: y += B (A x), with every scale inside B.
struct LowRank {
  kernels::Matrix a;                    ///< [rank, columns], f32; rank 0: none.
  const float* b_transposed = nullptr;  ///< [rank, rows]

  size_t rank() const { return a.rows; }
};

/// One stored weight matrix [rows = outputs, columns = inputs] and the form in which products read it. Immutable after
/// loading and shared by all sequences.
struct WeightMatrix {
  std::string name;
  TensorView stored;                    ///< As in the file.
  kernels::Matrix active;               ///< What products read: `stored`, or a packed copy that ModelWeights owns.
  const MappedFile* mapping = nullptr;  ///< The file that `stored` lies in; null when it is in owned memory.
  LowRank low_rank;                     ///< Of the adapters that run with the model; model/adapters.h owns it.

  /// Bytes of the packed copy, or 0 when the processor gains nothing from one.
  uint64_t packed_bytes() const { return kernels::packed_bytes(stored.dtype, rows(), columns()); }
  bool is_packed() const { return active.layout != kernels::Layout::kPlain; }
  /// Bytes that a product reads: the packed copy if `pack` and the processor wants one, else the stored form.
  uint64_t product_bytes(bool pack) const;
  /// Gives the pages of the stored bytes [offset, offset + length) back, when they belong to a file.
  void release_stored(size_t offset, size_t length) const;
  size_t rows() const { return static_cast<size_t>(stored.rows()); }
  size_t columns() const { return static_cast<size_t>(stored.columns()); }
};

/// y = W x + bias + what adapters add.
struct Linear {
  const WeightMatrix* weight = nullptr;
  const float* bias = nullptr;  ///< [rows] or null.

  explicit operator bool() const { return weight != nullptr; }
  size_t outputs() const { return weight->rows(); }
  /// y[t * y_stride + r] for all tokens of the workspace's input.
  void apply(Workspace& workspace, float* y, size_t y_stride) const;
};

/// A linear layer and where its result goes: y[t * y_stride + r].
struct LinearOutput {
  const Linear& layer;
  float* y;
  size_t y_stride;
};

/// Most layers of one apply_linears().
constexpr size_t kMostLinears = 4;

/// Several layers that read the workspace's input, in one parallel loop, then their adapters. Takes workspace for
/// n_tokens floats for each rank of an adapter.
void apply_linears(std::span<const LinearOutput> outputs, Workspace& workspace);

/// RMSNorm (arXiv 1910.07467) or LayerNorm (arXiv 1607.06450) over the last dimension.
struct Norm {
  enum class Kind : uint8_t { kNone, kRms, kLayer };
  Kind kind = Kind::kNone;
  const float* weight = nullptr;
  const float* bias = nullptr;  ///< LayerNorm only; may be null.
  float eps = 0;
  size_t size = 0;

  explicit operator bool() const { return kind != Kind::kNone; }
  /// Normalises n_rows rows of `size` floats, rows `stride` floats apart, x to y (may be equal). Parallel inside.
  void apply(const float* x, size_t n_rows, size_t stride, float* y) const;
};

/// y += x for n floats, on all threads.
void add_to(const float* x, size_t n, float* y);

}  // namespace mneme
