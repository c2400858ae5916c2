#include "train/ops/packed_product.h"

#include <algorithm>
#include <type_traits>

#include "base/checked_math.h"
#include "base/parallel.h"
#include "tensor/weight_format.h"
#include "train/ops/gemm.h"

namespace mneme::train {
namespace {

constexpr size_t kTileRows = 32;
constexpr size_t kTileColumns = 256;  // a multiple of every block size

template <typename T>
struct alignas(64) Tile {
  T values[kTileRows * kTileColumns];

  /// Decodes rows [row, row + n_rows) and columns [column, column + n_columns) of w; tile rows are kTileColumns apart.
  void decode(const TensorView& w, size_t row, size_t n_rows, size_t column, size_t n_columns) {
    const TileRange range{row, n_rows, column, n_columns};
    if constexpr (std::is_same_v<T, float>) {
      weight_format(w.dtype).decode_tile(w, range, values, kTileColumns);
    } else {
      float decoded[kTileRows * kTileColumns];
      weight_format(w.dtype).decode_tile(w, range, decoded, kTileColumns);
      for (size_t i = 0; i < n_rows; ++i) std::copy_n(decoded + i * kTileColumns, n_columns, values + i * kTileColumns);
    }
  }
};

/// Tokens of one piece of work: few enough that its rows of x stay in the second cache, and pieces for every thread
/// when a matrix has few tiles. A piece decodes its tiles itself.
size_t token_block(size_t n, size_t n_tiles) {
  constexpr size_t kMost = 1024, kLeast = 64;
  const auto threads = static_cast<size_t>(n_threads());
  if (n_tiles >= 2 * threads) return std::min(n, kMost);
  return std::clamp(div_up(n, threads), std::min(n, kLeast), kMost);
}

/// Calls work(tile, first token, tokens) for all tiles and blocks of tokens, in parallel.
template <typename Work>
void for_pieces(size_t n_tiles, size_t n, Work work) {
  if (n == 0) return;
  const size_t block = token_block(n, n_tiles), n_blocks = div_up(n, block);
  parallel_for(n_tiles * n_blocks, 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t first = i % n_blocks * block;
      work(i / n_blocks, first, std::min(block, n - first));
    }
  });
}

}  // namespace

template <typename T>
void packed_multiply(const TensorView& w, const T* x, size_t n, bool accumulate, T* y) {
  const size_t rows = w.rows(), columns = w.columns();
  for_pieces(div_up(rows, kTileRows), n, [&](size_t index, size_t first, size_t n_tokens) {
    Tile<T> tile;
    const size_t row = index * kTileRows, n_rows = std::min(kTileRows, rows - row);
    for (size_t column = 0; column < columns; column += kTileColumns) {
      const size_t n_columns = std::min(kTileColumns, columns - column);
      tile.decode(w, row, n_rows, column, n_columns);
      const GemmShape shape{n_tokens, n_rows, n_columns, false, true, columns, kTileColumns, rows};
      gemm(shape, T{1}, x + first * columns + column, tile.values, column > 0 || accumulate ? T{1} : T{0},
           y + first * rows + row);
    }
  });
}

template <typename T>
void packed_multiply_transposed(const TensorView& w, const T* dy, size_t n, bool accumulate, T* dx) {
  const size_t rows = w.rows(), columns = w.columns();
  for_pieces(div_up(columns, kTileColumns), n, [&](size_t index, size_t first, size_t n_tokens) {
    Tile<T> tile;
    const size_t column = index * kTileColumns, n_columns = std::min(kTileColumns, columns - column);
    for (size_t row = 0; row < rows; row += kTileRows) {
      const size_t n_rows = std::min(kTileRows, rows - row);
      tile.decode(w, row, n_rows, column, n_columns);
      const GemmShape shape{n_tokens, n_columns, n_rows, false, false, rows, kTileColumns, columns};
      gemm(shape, T{1}, dy + first * rows + row, tile.values, row > 0 || accumulate ? T{1} : T{0},
           dx + first * columns + column);
    }
  });
}

template void packed_multiply(const TensorView&, const float*, size_t, bool, float*);
template void packed_multiply(const TensorView&, const double*, size_t, bool, double*);
template void packed_multiply_transposed(const TensorView&, const float*, size_t, bool, float*);
template void packed_multiply_transposed(const TensorView&, const double*, size_t, bool, double*);

}  // namespace mneme::train
