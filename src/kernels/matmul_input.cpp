#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked_math.h"
#include "base/parallel.h"
#include "kernels/aqlm_product.h"
#include "kernels/bitstack_product.h"
#include "kernels/matmul.h"
#include "kernels/products/product_table.h"
#include "tensor/bipolar.h"

namespace mneme::kernels {
namespace {

using namespace products;

/// Where the parts of the 8-bit form lie in one buffer, for n tokens. Rows of the last tile are as long as the others.
struct Int8Parts {
  size_t levels = 0, anchors, half_sums, starts, sums, bytes;

  Int8Parts(size_t n_tokens, size_t columns) {
    const size_t rows = n_tokens * div_up(columns, kTileColumns);
    constexpr size_t kMostGroups = kTileColumns / 16;
    anchors = levels + rows * kTileColumns;
    half_sums = anchors + rows * kTileBlocks * sizeof(float);
    starts = half_sums + rows * kTileBlocks * 2 * sizeof(int16_t);
    sums = starts + rows * kMostGroups * sizeof(int32_t);
    bytes = sums + rows * kMostGroups * sizeof(float);
  }
};

/// Below this many values one thread is faster than waking the others.
constexpr size_t kValuesAThread = 32768;

size_t sums_bytes(size_t n_workers, size_t n_tokens) {
  return n_workers * n_tokens * kMaxJobRows * sizeof(float);
}
size_t bf16_bytes(size_t n_tokens, size_t columns) {
  return n_tokens * round_up(columns, size_t{2}) * 2;
}
constexpr size_t kPlaneGroup = 128;

/// Planes of all tokens, then their scales.
size_t plane_bytes(size_t n_tokens, size_t columns, size_t bits) {
  return n_tokens * (columns / kPlaneGroup) * (bits * kPlaneGroup / 8 + sizeof(float));
}
size_t f32_bytes(size_t n_tokens, size_t columns) {
  return n_tokens > 1 ? n_tokens * columns * 4 : 0;
}

/// Calls work(tile, token, columns in tile) for every tile of every token, in parallel when there are many.
template <class Work>
void for_tiles(size_t n_tokens, size_t columns, const Work& work) {
  const size_t n_tiles = div_up(columns, kTileColumns);
  parallel_for(n_tiles * n_tokens, kValuesAThread / kTileColumns, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t tile = i / n_tokens;
      work(tile, i % n_tokens, std::min(kTileColumns, columns - tile * kTileColumns));
    }
  });
}

}  // namespace

MatmulInput::MatmulInput(Ledger& ledger) : ledger_(&ledger) {}

void MatmulInput::set(const float* x, size_t n_tokens, size_t columns) {
  x_ = x;
  n_tokens_ = n_tokens;
  columns_ = columns;
  has_int8_ = has_bf16_ = has_f32_ = false;
  start_group_ = 0;
  plane_bits_ = 0;
}

void MatmulInput::grow(Buffer& buffer, size_t bytes) {
  if (buffer.size() >= bytes) return;
  buffer = Buffer();  // the old one goes first
  buffer = Buffer(*ledger_, Tag::kScratch, bytes, "matrix product");
}

void MatmulInput::quantize(float limit) {
  const Int8Parts parts(n_tokens_, columns_);
  grow(int8_, parts.bytes);
  std::byte* base = int8_.data();
  auto* levels = reinterpret_cast<int8_t*>(base + parts.levels);
  auto* anchors = reinterpret_cast<float*>(base + parts.anchors);
  auto* half_sums = reinterpret_cast<int16_t*>(base + parts.half_sums);
  const ProductTable& table = product_table();
  for_tiles(n_tokens_, columns_, [&](size_t tile, size_t token, size_t n) {
    const size_t row = tile * n_tokens_ + token;
    table.quantize(x_ + token * columns_ + tile * kTileColumns, n / kBlockColumns, limit, levels + row * kTileColumns,
                   anchors + row * kTileBlocks, half_sums + row * 2 * kTileBlocks);
  });
  has_int8_ = true;
  int8_limit_ = limit;
  start_group_ = 0;
}

void MatmulInput::make_starts(const ProductEntry& entry) {
  const Int8Parts parts(n_tokens_, columns_);
  std::byte* base = int8_.data();
  const auto* anchors = reinterpret_cast<const float*>(base + parts.anchors);
  const auto* half_sums = reinterpret_cast<const int16_t*>(base + parts.half_sums);
  auto* starts = reinterpret_cast<int32_t*>(base + parts.starts);
  auto* sums = reinterpret_cast<float*>(base + parts.sums);
  const size_t groups_a_block = kBlockColumns / entry.group, halves = 2 / groups_a_block;
  for_tiles(n_tokens_, columns_, [&](size_t tile, size_t token, size_t n) {
    const size_t first_block = (tile * n_tokens_ + token) * kTileBlocks;
    for (size_t b = first_block; b < first_block + n / kBlockColumns; ++b) {
      const auto anchor = std::bit_cast<uint32_t>(anchors[b]);
      const auto scale = std::bit_cast<float>((anchor - (23u << 23)) & 0xff800000u);
      for (size_t i = 0; i < groups_a_block; ++i) {
        const int32_t sum = halves == 1 ? half_sums[2 * b + i] : half_sums[2 * b] + half_sums[2 * b + 1];
        starts[b * groups_a_block + i] = static_cast<int32_t>(anchor - static_cast<uint32_t>(entry.zero * sum));
        sums[b * groups_a_block + i] = scale * static_cast<float>(sum);
      }
    }
  });
  start_group_ = entry.group;
  start_zero_ = entry.zero;
}

void MatmulInput::prepare_int8(const ProductEntry& entry, float limit, StripeJob& job) {
  if (!has_int8_ || int8_limit_ != limit) quantize(limit);
  if (start_group_ != entry.group || start_zero_ != entry.zero) make_starts(entry);
  const Int8Parts parts(n_tokens_, columns_);
  const std::byte* base = int8_.data();
  job.int8 = {reinterpret_cast<const int8_t*>(base + parts.levels),
              reinterpret_cast<const float*>(base + parts.anchors),
              reinterpret_cast<const int32_t*>(base + parts.starts), reinterpret_cast<const float*>(base + parts.sums)};
}

void MatmulInput::make_bf16() {
  grow(bf16_, bf16_bytes(n_tokens_, columns_));
  auto* out = reinterpret_cast<uint16_t*>(bf16_.data());
  const ProductTable& table = product_table();
  for_tiles(n_tokens_, columns_, [&](size_t tile, size_t token, size_t n) {
    uint16_t* to = out + tile * kTileColumns * n_tokens_ + token * round_up(n, size_t{2});
    table.to_bf16(x_ + token * columns_ + tile * kTileColumns, n, to);
    if (n % 2 != 0) to[n] = 0;
  });
  has_bf16_ = true;
}

void MatmulInput::make_f32() {
  grow(f32_, f32_bytes(n_tokens_, columns_));
  auto* out = reinterpret_cast<float*>(f32_.data());
  for_tiles(n_tokens_, columns_, [&](size_t tile, size_t token, size_t n) {
    std::memcpy(out + tile * kTileColumns * n_tokens_ + token * n, x_ + token * columns_ + tile * kTileColumns,
                n * sizeof(float));
  });
  has_f32_ = true;
}

void MatmulInput::make_planes(int bits) {
  const auto n_bits = static_cast<size_t>(bits);
  grow(planes_, plane_bytes(n_tokens_, columns_, n_bits));
  const size_t groups = columns_ / kPlaneGroup, n = n_tokens_ * groups;
  auto* words = reinterpret_cast<uint32_t*>(planes_.data());
  auto* scales = reinterpret_cast<float*>(planes_.data() + n * n_bits * kPlaneGroup / 8);
  const ProductTable& table = product_table();
  parallel_for(n, kValuesAThread / kPlaneGroup / 8, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      table.quantize_planes(x_ + i * kPlaneGroup, bits, words + i * n_bits * kPlaneGroup / 32, scales + i);
    }
  });
  plane_bits_ = bits;
}

void MatmulInput::prepare(const ProductEntry& entry, float limit, size_t n_workers, StripeJob& job) {
  grow(sums_, sums_bytes(n_workers, n_tokens_));
  job.sums = reinterpret_cast<float*>(sums_.data());
  switch (entry.currency) {
    case Currency::kInt8:
      prepare_int8(entry, limit, job);
      break;
    case Currency::kBf16:
      if (!has_bf16_) make_bf16();
      job.bf16 = reinterpret_cast<const uint16_t*>(bf16_.data());
      break;
    case Currency::kPlanes: {
      if (plane_bits_ != entry.bits) make_planes(entry.bits);
      const size_t n = n_tokens_ * (columns_ / kPlaneGroup);
      job.planes = {
          reinterpret_cast<const uint32_t*>(planes_.data()),
          reinterpret_cast<const float*>(planes_.data() + n * static_cast<size_t>(entry.bits) * kPlaneGroup / 8),
          entry.bits};
      break;
    }
    case Currency::kF32:
      // The tiles of a single token follow one another in x already.
      if (n_tokens_ > 1 && !has_f32_) make_f32();
      job.f32 = n_tokens_ > 1 ? reinterpret_cast<const float*>(f32_.data()) : x_;
      break;
  }
}

size_t matmul_scratch_bytes(size_t n_tokens, size_t columns, std::span<const DType> dtypes) {
  bool needs[4] = {};
  for (DType dtype : dtypes) {
    if (bipolar::bits_of(dtype) > 0) needs[static_cast<size_t>(Currency::kPlanes)] = true;
    for (Layout layout : {Layout::kPlain, Layout::kPacked}) {
      const ProductEntry entry = product_table().find(dtype, layout);
      if (entry.run != nullptr) needs[static_cast<size_t>(entry.currency)] = true;
    }
  }
  size_t bytes = Buffer::reserved_bytes(sums_bytes(static_cast<size_t>(n_threads()), n_tokens));
  if (needs[static_cast<size_t>(Currency::kInt8)]) bytes += Buffer::reserved_bytes(Int8Parts(n_tokens, columns).bytes);
  if (needs[static_cast<size_t>(Currency::kBf16)]) bytes += Buffer::reserved_bytes(bf16_bytes(n_tokens, columns));
  if (needs[static_cast<size_t>(Currency::kF32)]) bytes += Buffer::reserved_bytes(f32_bytes(n_tokens, columns));
  if (needs[static_cast<size_t>(Currency::kPlanes)]) {
    bytes += Buffer::reserved_bytes(plane_bytes(n_tokens, columns, 8));
  }
  if (std::find(dtypes.begin(), dtypes.end(), DType::kBitStack) != dtypes.end()) {
    bytes += Buffer::reserved_bytes(signs_scratch_bytes(columns));
  }
  if (std::find(dtypes.begin(), dtypes.end(), DType::kAqlm) != dtypes.end()) {
    bytes += Buffer::reserved_bytes(tables_scratch_bytes(columns));
  }
  return bytes;
}

size_t matmul_scratch_bytes(size_t n_tokens, size_t columns) {
  constexpr DType kOneOfEachForm[] = {DType::kQ8_0, DType::kBF16, DType::kF32, DType::kBipolar1};
  return matmul_scratch_bytes(n_tokens, columns, kOneOfEachForm);
}

}  // namespace mneme::kernels
