#include "kernels/bitstack_product.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/checked_math.h"
#include "base/parallel.h"
#include "kernels/products/product_table.h"
#include "kernels/vector_ops.h"
#include "tensor/bitstack.h"

namespace mneme::kernels {
namespace {

using namespace products;

/// Rows z that one product may have: tokens x vectors x blocks. More multiply by tiles, so that memory has a bound.
constexpr size_t kMostRows = 256;
/// Stripes that a worker takes at a time; even, because signs of two stripes lie together.
constexpr size_t kRunStripes = 4;
constexpr size_t kRunRows = kRunStripes * kStripeRows;
/// Products below this many additions run on the calling thread, as in matmul.cpp.
constexpr size_t kSerialAdditions = size_t{1} << 16;

/// The rows z of all blocks in 8 bits, and working memory of the workers, in one buffer. Arrays of a block run over
/// [tile][row][in tile], row = token * vectors + vector.
struct Scratch {
  size_t tiles, rows, levels = 0, anchors, starts, outputs, sums, bytes;

  Scratch(size_t columns, size_t rows_of_a_block, size_t n_blocks, size_t n_workers)
      : tiles(div_up(columns, kTileColumns)), rows(rows_of_a_block) {
    const size_t n = tiles * rows * n_blocks;
    anchors = levels + n * kTileColumns;
    starts = anchors + n * kTileBlocks * sizeof(float);
    outputs = round_up<size_t>(starts + n * kTileBlocks * sizeof(int32_t), 64);
    sums = outputs + n_workers * rows * kRunRows * sizeof(float);
    bytes = sums + n_workers * rows * kMaxJobRows * sizeof(float);
  }
};

/// Columns [first, first + n) of z = v * x in 8 bits, with zeros behind the last column.
void make_row(const float* x, const std::byte* v, size_t n, int zero, int8_t* levels, float* anchors, int32_t* starts) {
  alignas(64) float z[kTileColumns];
  int16_t half_sums[2 * kTileBlocks];
  const size_t n_blocks = div_up(n, kBlockColumns);
  const VectorOps& ops = vector_ops();
  ops.f16_to_f32(v, n, z);
  ops.multiply(z, x, n, z);
  std::fill(z + n, z + n_blocks * kBlockColumns, 0.0f);
  product_table().quantize(z, n_blocks, 0.0f, levels, anchors, half_sums);
  for (size_t b = 0; b < n_blocks; ++b) {
    const auto start =
        std::bit_cast<uint32_t>(anchors[b]) - static_cast<uint32_t>(zero * (half_sums[2 * b] + half_sums[2 * b + 1]));
    starts[b] = static_cast<int32_t>(start);
  }
}

/// y[token][row] += u[vector][row] * output[token, vector][row] for the rows of a run.
void add_outputs(const bitstack::BlockLayout& layout, const std::byte* block, size_t first_row, size_t n_rows,
                 size_t n_tokens, const float* outputs, float* y, size_t y_stride) {
  alignas(64) float u[kRunRows], part[kRunRows];
  const VectorOps& ops = vector_ops();
  for (size_t j = 0; j < layout.vectors; ++j) {
    ops.f16_to_f32(block + layout.u_offset() + 2 * (j * layout.padded_rows() + first_row), n_rows, u);
    for (size_t t = 0; t < n_tokens; ++t) {
      ops.multiply(u, outputs + (t * layout.vectors + j) * kRunRows, n_rows, part);
      ops.add(y + t * y_stride, part, n_rows, y + t * y_stride);
    }
  }
}

}  // namespace

bool wants_signs(const Matrix& w, size_t n_tokens) {
  if (w.dtype != DType::kBitStack) return false;
  const size_t k = w.blocks->vectors, n = w.blocks->n_blocks;
  if (n_tokens * k * std::max<size_t>(1, n) > kMostRows) return false;
  // Steps of 16 weights, about: a block by signs takes k / 4 a token and is unpacked once, by tiles k + 4 and then half
  // a step a token.
  return n_tokens * k * n + 4 * n <= 4 * n * (k + 4) + 2 * n_tokens;
}

size_t signs_scratch_bytes(size_t columns) {
  return Scratch(columns, kMostRows, 1, static_cast<size_t>(n_threads())).bytes;
}

void multiply_by_signs(const MatmulTask& task, MatmulInput& x) {
  const Matrix& w = task.w;
  const bitstack::BlockList& list = *w.blocks;
  const bitstack::BlockLayout layout{w.rows, w.columns, list.vectors};
  const size_t k = list.vectors, n_blocks = list.n_blocks, n_tokens = x.n_tokens(), n_rows = n_tokens * k;
  const size_t padded = layout.padded_columns(), n_stripes = layout.padded_rows() / kStripeRows;
  const size_t n_runs = div_up(n_stripes, kRunStripes);
  const bool serial =
      n_threads() == 1 || w.rows * w.columns * n_rows * std::max<size_t>(1, n_blocks) < kSerialAdditions;
  const Scratch at(padded, n_rows, std::max<size_t>(1, n_blocks), static_cast<size_t>(n_threads()));
  x.grow(x.alone_, at.bytes);
  std::byte* const memory = x.alone_.data();
  auto* const levels = reinterpret_cast<int8_t*>(memory + at.levels);
  auto* const anchors = reinterpret_cast<float*>(memory + at.anchors);
  auto* const starts = reinterpret_cast<int32_t*>(memory + at.starts);
  auto* const outputs = reinterpret_cast<float*>(memory + at.outputs);
  auto* const sums = reinterpret_cast<float*>(memory + at.sums);
  const ProductEntry entry = product_table().find_signs();

  const auto prepare = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {  // [block][tile][row]
      const size_t row = i % n_rows, tile = i / n_rows % at.tiles, block = i / n_rows / at.tiles,
                   first = tile * kTileColumns;
      const std::byte* v = list.block(block) + layout.v_offset() + 2 * (row % k * padded + first);
      make_row(x.x() + row / k * w.columns + first, v, std::min(kTileColumns, w.columns - first), entry.zero,
               levels + i * kTileColumns, anchors + i * kTileBlocks, starts + i * kTileBlocks);
    }
  };
  /// Stripes of one run, for all blocks.
  const auto multiply = [&](size_t run, size_t worker) {
    const size_t stripe = run * kRunStripes, first_row = stripe * kStripeRows;
    const size_t rows = std::min(kRunRows, w.rows - first_row);
    float* const y = task.y + first_row;
    float* const out = outputs + worker * n_rows * kRunRows;
    for (size_t t = 0; t < n_tokens; ++t) {
      for (size_t r = 0; r < rows; ++r)
        y[t * task.y_stride + r] = task.bias != nullptr ? task.bias[first_row + r] : 0.0f;
    }
    for (size_t i = 0; i < n_blocks; ++i) {
      const size_t first = i * at.tiles * n_rows;
      const Matrix signs{DType::kBitStack, Layout::kPacked, rows, padded, list.block(i) + layout.words(stripe, 0)};
      StripeJob job{};
      job.matrix = &signs;
      job.last_stripe = div_up(rows, kStripeRows);
      job.n_tokens = n_rows;
      job.int8 = {levels + first * kTileColumns, anchors + first * kTileBlocks, starts + first * kTileBlocks, nullptr};
      job.y = out;
      job.y_stride = kRunRows;
      job.sums = sums + worker * n_rows * kMaxJobRows;
      entry.run(job);
      add_outputs(layout, list.block(i), first_row, rows, n_tokens, out, y, task.y_stride);
    }
  };
  const size_t n_prepared = n_blocks * at.tiles * n_rows;
  if (serial) {
    prepare(0, n_prepared);
    for (size_t run = 0; run < n_runs; ++run) multiply(run, 0);
    return;
  }
  parallel_for(n_prepared, 64, prepare);
  std::atomic<size_t> next{0};
  parallel_workers([&](int worker, int) {
    for (size_t run = next++; run < n_runs; run = next++) multiply(run, static_cast<size_t>(worker));
  });
}

}  // namespace mneme::kernels
