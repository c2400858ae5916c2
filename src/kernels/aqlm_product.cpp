#include "kernels/aqlm_product.h"

#include <algorithm>
#include <cstring>

#include "base/checked_math.h"
#include "base/half.h"
#include "base/parallel.h"
#include "kernels/products/product_table.h"
#include "tensor/aqlm.h"

namespace mneme::kernels {
namespace {

using namespace products;

constexpr size_t kMostTokens = 4;
/// Bytes of tables a column and token; settings that need more multiply by tiles, so that memory has a bound.
constexpr size_t kMostTableBytes = 256;
/// Stripes below this many look-ups run on the calling thread, as in matmul.cpp.
constexpr size_t kSerialLookUps = size_t{1} << 14;

/// Entries of a table: those of shuffles come in pieces of 16.
size_t table_size(uint32_t bits) {
  return std::max<size_t>(16, size_t{1} << bits);
}

/// Tables of all tokens, their scales, and the codebooks as floats, in one buffer.
struct Scratch {
  size_t token_bytes, n_blocks, scales, books, bytes;

  Scratch(size_t n_tables, size_t size, size_t book_floats)
      : token_bytes(n_tables * size), n_blocks(div_up(n_tables, kTablesAScale)) {
    scales = round_up<size_t>(kMostTokens * token_bytes, 64);
    books = round_up<size_t>(scales + kMostTokens * n_blocks * sizeof(float), 64);
    bytes = books + book_floats * sizeof(float);
  }
};

}  // namespace

bool wants_tables(const Matrix& w, size_t n_tokens) {
  if (w.dtype != DType::kAqlm || n_tokens > kMostTokens) return false;
  const aqlm::Layout layout = aqlm::layout_of(w.rows, w.columns, w.data);
  const aqlm::Scheme& scheme = layout.scheme;
  if (scheme.bits > 8) return false;
  if (layout.groups() * scheme.codebooks * table_size(scheme.bits) > kMostTableBytes * w.columns) return false;
  // A table takes g + 2 steps an entry to make, in vectors of 8; a tile about a step a weight and codebook.
  return w.rows * scheme.group >= 2 * table_size(scheme.bits);
}

size_t tables_scratch_bytes(size_t columns) {
  // Of groups of one column, with the most codebooks.
  const size_t n_tables = aqlm::kMostCodebooks * columns;
  return kMostTokens * (kMostTableBytes * columns + div_up(n_tables, kTablesAScale) * sizeof(float)) +
         aqlm::kMostCodebooks * aqlm::kMostGroup * kMostTableEntries * sizeof(float) + 256;
}

void multiply_by_tables(const MatmulTask& task, MatmulInput& x) {
  const Matrix& w = task.w;
  const aqlm::Layout layout = aqlm::layout_of(w.rows, w.columns, w.data);
  const size_t g = layout.scheme.group, n_books = layout.scheme.codebooks, n_tokens = x.n_tokens(),
               size = table_size(layout.scheme.bits), n_entries = size_t{1} << layout.scheme.bits;
  const size_t n_tables = layout.groups() * n_books, n_stripes = layout.stripes();
  const Scratch at(n_tables, size, n_books * g * size);
  x.grow(x.alone_, at.bytes);
  std::byte* const memory = x.alone_.data();
  auto* const tables = reinterpret_cast<int8_t*>(memory);
  auto* const scales = reinterpret_cast<float*>(memory + at.scales);
  auto* const values = reinterpret_cast<float*>(memory + at.books);
  std::fill_n(values, n_books * g * size, 0.0f);
  const std::vector<float> books = aqlm::read_books(layout, w.data);
  for (size_t m = 0; m < n_books; ++m) {
    for (size_t k = 0; k < n_entries; ++k) {
      for (size_t i = 0; i < g; ++i) values[(m * g + i) * size + k] = books[(m * n_entries + k) * g + i];
    }
  }
  const ProductTable& table = product_table();
  const LookUpBooks of{values, n_books, g, size, n_tables};
  const auto make = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t token = i / at.n_blocks, block = i % at.n_blocks;
      table.make_look_up_tables(of, x.x() + token * w.columns, w.columns, block,
                                tables + token * at.token_bytes + block * kTablesAScale * size,
                                scales + token * at.n_blocks + block);
    }
  };
  const auto multiply = [&](size_t begin, size_t end) {
    LookUpJob job{};
    job.codes = reinterpret_cast<const uint8_t*>(w.data) + layout.codes();
    job.row_scales = w.data + layout.scales();
    job.tables = tables;
    job.scales = scales;
    job.token_bytes = at.token_bytes;
    job.n_blocks = at.n_blocks;
    job.n_tables = n_tables;
    job.size = size;
    job.bits = layout.scheme.bits;
    job.n_tokens = n_tokens;
    job.n_rows = w.rows;
    job.first_stripe = begin;
    job.last_stripe = end;
    job.bias = task.bias;
    job.y = task.y;
    job.y_stride = task.y_stride;
    table.look_up(job);
  };
  const bool serial = n_threads() == 1 || n_tables * w.rows * n_tokens < kSerialLookUps;
  if (serial) {
    make(0, n_tokens * at.n_blocks);
    multiply(0, n_stripes);
    return;
  }
  parallel_for(n_tokens * at.n_blocks, 1, make);
  parallel_for(n_stripes, 1, multiply);
}

}  // namespace mneme::kernels
