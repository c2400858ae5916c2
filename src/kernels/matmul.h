#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "budget/buffer.h"
#include "tensor/tensor.h"

/// Products of a stored weight matrix with activations: y[t, r] = sum over k of W[r, k] * x[t, k].
namespace mneme::kernels {

/// How the bytes of a matrix are arranged.
enum class Layout : uint8_t {
  kPlain,      ///< Rows of GGUF blocks as in the file.
  kPacked,     ///< Re-arranged by pack_matrix() for this processor; same bytes of information, never written to a file.
  kBitPlanes,  ///< Bipolar types re-arranged by pack_bit_planes(), as large as kPacked.
};

/// A weight matrix as the product kernels see it. Does not own its bytes.
struct Matrix {
  DType dtype = DType::kF32;
  Layout layout = Layout::kPlain;
  size_t rows = 0, columns = 0;
  const std::byte* data = nullptr;
  /// Of bipolar types: 1 to 8 takes activations as bipolar integers of so many bits and multiplies by bit-planes; 0
  /// takes them in 8 bits as all types do.
  uint8_t plane_bits = 0;
  const bitstack::BlockList* blocks = nullptr;  ///< Of kBitStack; see TensorView.
  /// Where products take activations in 8 bits: above zero, the magnitude that their scale is made for, always the same
  /// one (static quantisation); larger activations become it. 0: each 32 columns have a scale of their own.
  float input_limit = 0;

  static Matrix from(const TensorView& view) {
    return {
        view.dtype, Layout::kPlain, static_cast<size_t>(view.rows()), static_cast<size_t>(view.columns()), view.data,
        0,          view.blocks};
  }
};

/// True when products with this type are implemented (all types that decode are).
bool can_multiply(DType dtype);

/// Bytes of the packed layout of a rows x columns matrix, or 0 when this processor gains nothing from packing it.
size_t packed_bytes(DType dtype, size_t rows, size_t columns);
/// Re-arranges `plain` into packed_bytes() bytes at `out` (64-byte aligned). Parallel inside.
Matrix pack_matrix(const Matrix& plain, std::byte* out);

/// True when a bipolar type multiplies faster by bit-planes than in 8 bits with activations of `bits`, on this processor:
/// on another the same file may round its inputs less.
bool wants_bit_planes(DType dtype, int bits);
/// Re-arranges a plain matrix of a bipolar type for products by bit-planes with activations of `bits` (1 to 8), into
/// packed_bytes() bytes at `out` (64-byte aligned). Parallel inside.
Matrix pack_bit_planes(const Matrix& plain, int bits, std::byte* out);

/// One product of several that read the same input: y[t * y_stride + r] = w[r] . x[t] + bias[r]; bias may be null.
struct MatmulTask {
  Matrix w;
  const float* bias = nullptr;
  float* y = nullptr;
  size_t y_stride = 0;
};

namespace products {
struct ProductEntry;
struct StripeJob;
}  // namespace products

/// The activations of one layer input, prepared once and shared by all matrices that read it (q, k and v; gate and up).
/// Forms (8-bit blocks, bf16) are made when a product first needs them and kept until the next set().
/// Not thread-safe; the products themselves are parallel inside.
class MatmulInput {
 public:
  /// Working memory comes from `ledger` under Tag::kScratch and grows to the largest input seen.
  explicit MatmulInput(Ledger& ledger);
  /// Points at n_tokens x columns floats, row stride `columns`. They must stay unchanged while products run.
  void set(const float* x, size_t n_tokens, size_t columns);

  /// `observer` is called at the start of each matmul() with this input, for statistics of layer inputs; an empty one
  /// ends it.
  void observe(std::function<void(std::span<const MatmulTask>, const MatmulInput&)> observer) {
    observer_ = std::move(observer);
  }

  const float* x() const { return x_; }
  size_t n_tokens() const { return n_tokens_; }
  size_t columns() const { return columns_; }

 private:
  friend void matmul(std::span<const MatmulTask> tasks, MatmulInput& x);
  friend void multiply_by_signs(const MatmulTask& task, MatmulInput& x);
  friend void multiply_by_tables(const MatmulTask& task, MatmulInput& x);

  /// Makes the form that `entry` reads and points `job` at it and at working memory for `n_workers` kernels.
  void prepare(const products::ProductEntry& entry, float limit, size_t n_workers, products::StripeJob& job);
  void prepare_int8(const products::ProductEntry& entry, float limit, products::StripeJob& job);
  void quantize(float limit);
  void make_starts(const products::ProductEntry& entry);
  void make_bf16();
  void make_f32();
  void make_planes(int bits);
  void grow(Buffer& buffer, size_t bytes);

  Ledger* ledger_;
  std::function<void(std::span<const MatmulTask>, const MatmulInput&)> observer_;
  const float* x_ = nullptr;
  size_t n_tokens_ = 0, columns_ = 0;
  Buffer int8_, bf16_, f32_, planes_, sums_, alone_;  ///< The last: of multiply_by_signs() and multiply_by_tables().
  bool has_int8_ = false, has_bf16_ = false, has_f32_ = false;
  float int8_limit_ = 0;    ///< Matrix::input_limit of what is in int8_.
  size_t start_group_ = 0;  ///< Columns a group and zero level of the starts in int8_; group 0: none yet.
  int start_zero_ = 0;
  int plane_bits_ = 0;  ///< Of what is in planes_; 0: nothing.
};

/// Upper bound of the working memory that MatmulInput and matmul() take for inputs of up to n_tokens x columns that
/// meet matrices of the given types, bytes.
size_t matmul_scratch_bytes(size_t n_tokens, size_t columns, std::span<const DType> dtypes);
/// The same for matrices of any type.
size_t matmul_scratch_bytes(size_t n_tokens, size_t columns);

/// Runs all tasks. Those whose types read the input in the same form share one parallel loop, which saves waiting for
/// the slowest worker after each. No y may overlap x. The result of a token does not depend on the other tokens or
/// tasks, but that small and large batches multiply with BITSTACK and AQLM matrices in different ways
/// (bitstack_product.h, aqlm_product.h).
void matmul(std::span<const MatmulTask> tasks, MatmulInput& x);

/// A single task.
void matmul(const Matrix& w, MatmulInput& x, const float* bias, float* y, size_t y_stride);

}  // namespace mneme::kernels
