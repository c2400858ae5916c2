#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/function_ref.h"
#include "tensor/tensor.h"

namespace mneme {

/// A rectangle of a matrix.
struct TileRange {
  uint64_t first_row = 0, n_rows = 0, first_column = 0, n_columns = 0;
};

/// A matrix on its way into a format whose size depends on the values: the size is known first, the bytes come in
/// order.
class MatrixEncoder {
 public:
  virtual ~MatrixEncoder() = default;
  /// Bytes that write() will hand out.
  virtual uint64_t bytes() const = 0;
  /// Hands the stored form out in pieces of any size. `from` has the values that the encoder was made for.
  virtual void write(const TensorView& from, FunctionRef<void(std::span<const std::byte>)> out) const = 0;
};

/// How matrices of one type are stored: what every way of holding a matrix in fewer bytes can do. There is one object a
/// row of the table of types (dtype.h). Rows of equal blocks need only the codecs of that table; types that store a
/// matrix as one stream implement this. Products with activations are kernels/matmul.h, which has kernels for some
/// types and falls back on decode_tile() for the others.
class WeightFormat {
 public:
  virtual ~WeightFormat() = default;

  /// Why a matrix of this shape cannot be stored so, or an empty text.
  virtual std::string misfit(const Shape& shape) const = 0;
  /// An encoder for `from`, a matrix of any type that decodes. Throws Error(kInvalidArgument) for
  /// values that cannot be held; lossless formats refuse every value they would change.
  virtual std::unique_ptr<MatrixEncoder> encoder(const TensorView& from) const = 0;
  /// Checks what can be wrong in stored bytes without knowing the values, so that decoding cannot leave them. Throws
  /// Error(kCorruptData) with `name`. Called before the first use.
  virtual void validate(const TensorView& stored, const std::string& name) const = 0;
  /// Decodes a rectangle to rows of floats, `stride` floats apart. Columns may be any, but see kTileRows for what is
  /// fast.
  virtual void decode_tile(const TensorView& stored, const TileRange& range, float* out, size_t stride) const = 0;
};

/// The format of a type; the type must decode (dtype_info().decode) or be a stream.
const WeightFormat& weight_format(DType dtype);

/// True when values of this type can be read.
bool can_decode(DType dtype);

/// Reads the size of a stream from its first bytes; throws Error(kCorruptData) when they are none or it is larger than
/// `available`.
uint64_t stream_size(DType dtype, std::span<const std::byte> available, const std::string& name);

/// Bytes at the head of each stream that stream_size() reads.
constexpr size_t kStreamHead = 16;

}  // namespace mneme
