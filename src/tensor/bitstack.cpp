#include "tensor/bitstack.h"

#include <algorithm>
#include <cstring>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/half.h"

namespace mneme::bitstack {
namespace {

template <typename T>
T load(const std::byte* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

float half_at(const std::byte* halves, uint64_t i) {
  return f16_to_f32(load<uint16_t>(halves + 2 * i));
}

/// out += S * (U V) for a rectangle of a block.
void add_tile(const BlockLayout& layout, const std::byte* block, const TileRange& range, float* out, size_t stride) {
  const std::byte* const u = block + layout.u_offset();
  const std::byte* const v = block + layout.v_offset();
  std::vector<float> right(layout.vectors * range.n_columns), row(range.n_columns);
  for (uint64_t j = 0; j < layout.vectors; ++j) {
    for (uint64_t c = 0; c < range.n_columns; ++c) {
      right[j * range.n_columns + c] = half_at(v, j * layout.padded_columns() + range.first_column + c);
    }
  }
  for (uint64_t i = 0; i < range.n_rows; ++i) {
    const uint64_t r = range.first_row + i;
    std::fill(row.begin(), row.end(), 0.0f);
    for (uint64_t j = 0; j < layout.vectors; ++j) {
      const float left = half_at(u, j * layout.padded_rows() + r);
      for (uint64_t c = 0; c < range.n_columns; ++c) row[c] += left * right[j * range.n_columns + c];
    }
    for (uint64_t c = 0; c < range.n_columns; ++c) {
      const uint64_t column = range.first_column + c;
      const auto word = load<uint32_t>(block + layout.words(r / kStripe, column) + 4 * (r % kStripe));
      out[i * stride + c] += (word >> sign_bit(column) & 1u) != 0 ? row[c] : -row[c];
    }
  }
}

class Format : public WeightFormat {
 public:
  std::string misfit(const Shape& shape) const override { return shape.rank() == 2 ? "" : "a matrix"; }

  std::unique_ptr<MatrixEncoder> encoder(const TensorView&) const override {
    fail(ErrorCode::kUnsupported,
         "[encode] a BITSTACK matrix is made together with the others of its model: mneme quantize");
  }

  void validate(const TensorView& stored, const std::string& name) const override {
    const auto damaged = [&](std::string_view what) {
      fail(ErrorCode::kCorruptData, "[read weights] tensor '{}': expected a valid BITSTACK directory, found {}", name,
           what);
    };
    const uint64_t total = stored.stream_bytes;
    if (total < kFirstEntry || (total - kFirstEntry) % kEntryBytes != 0) damaged("a size of no whole entries");
    if ((total - kFirstEntry) / kEntryBytes > kMostBlocks) damaged("more than 64 blocks");
    const auto vectors = load<uint32_t>(stored.data + kVectorsAt);
    if (vectors < 1 || vectors > kMostVectors) damaged("a number of vectors outside 1 to 16");
    constexpr uint64_t kMostExtent = uint64_t{1} << 30;  // then no size of a block overflows
    if (stored.rows() > kMostExtent || stored.columns() > kMostExtent) damaged("more than 2^30 rows or columns");
    const uint64_t bytes = BlockLayout{stored.rows(), stored.columns(), vectors}.bytes();
    uint64_t least = 0;
    for (const Entry& entry : directory_entries(stored)) {
      const auto end = checked_add(entry.place, bytes);
      if (entry.place < least || !end) damaged("blocks that overlap or are out of order");
      least = *end;
    }
  }

  void decode_tile(const TensorView& stored, const TileRange& range, float* out, size_t stride) const override {
    if (stored.blocks == nullptr) {
      fail(ErrorCode::kUnsupported, "[decode] the blocks of a BITSTACK matrix are not at hand");
    }
    const BlockList& list = *stored.blocks;
    for (uint64_t r = 0; r < range.n_rows; ++r) std::fill_n(out + r * stride, range.n_columns, 0.0f);
    const BlockLayout layout{stored.rows(), stored.columns(), list.vectors};
    for (size_t i = 0; i < list.n_blocks; ++i) add_tile(layout, list.block(i), range, out, stride);
  }
};

}  // namespace

std::vector<std::byte> write_directory(uint32_t vectors, std::span<const Entry> entries) {
  std::vector<std::byte> out(kFirstEntry + kEntryBytes * entries.size());
  const auto put = [&](size_t at, auto value) { std::memcpy(out.data() + at, &value, sizeof value); };
  put(0, uint64_t{out.size()});
  put(8, static_cast<uint32_t>(DType::kBitStack));
  put(kVectorsAt, vectors);
  for (size_t i = 0; i < entries.size(); ++i) {
    put(kFirstEntry + kEntryBytes * i, entries[i].place);
    put(kFirstEntry + kEntryBytes * i + 8, entries[i].checksum);
  }
  return out;
}

uint32_t directory_vectors(const TensorView& directory) {
  return load<uint32_t>(directory.data + kVectorsAt);
}

std::vector<Entry> directory_entries(const TensorView& directory) {
  std::vector<Entry> out((directory.stream_bytes - kFirstEntry) / kEntryBytes);
  for (size_t i = 0; i < out.size(); ++i) {
    const std::byte* at = directory.data + kFirstEntry + kEntryBytes * i;
    out[i] = {load<uint64_t>(at), load<uint64_t>(at + 8)};
  }
  return out;
}

uint32_t vectors_for(uint64_t rows, uint64_t columns) {
  uint32_t k = kMostVectors;
  while (k > 1 && 16.0 * k * (static_cast<double>(rows) + static_cast<double>(columns)) >
                      static_cast<double>(rows) * static_cast<double>(columns) / 8) {
    k /= 2;
  }
  return k;
}

void pack_signs(const BlockLayout& layout, const float* w, std::byte* block) {
  for (uint64_t r = 0; r < layout.rows; ++r) {
    for (uint64_t first = 0; first < layout.columns; first += kColumnGroup) {
      uint32_t word = 0;
      for (uint64_t c = first; c < std::min(layout.columns, first + kColumnGroup); ++c) {
        word |= static_cast<uint32_t>(w[r * layout.columns + c] >= 0) << sign_bit(c);
      }
      std::memcpy(block + layout.words(r / kStripe, first) + 4 * (r % kStripe), &word, sizeof word);
    }
  }
}

void decode_block(const BlockLayout& layout, const std::byte* block, uint64_t first, uint64_t n, float* out) {
  std::fill_n(out, n * layout.columns, 0.0f);
  add_tile(layout, block, {first, n, 0, layout.columns}, out, layout.columns);
}

std::unique_ptr<WeightFormat> make_format() {
  return std::make_unique<Format>();
}

}  // namespace mneme::bitstack
