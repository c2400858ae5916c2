#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/half.h"
#include "base/parallel.h"
#include "tensor/dfloat.h"

#define MNEME_TARGET any
#include "tensor/dfloat_tile-inl.h"

namespace mneme::dfloat {
namespace {

using Counts = std::array<uint64_t, 256>;
using Bytes = std::vector<std::byte>;

constexpr size_t word_at(size_t row, size_t column) {
  return column / 2 * (2 * kTileRows) + 2 * row + column % 2;
}

template <typename T>
void append(Bytes& to, T value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}

template <typename T>
T load(const std::byte* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// Words of one tile of a matrix of any type; false when a value is no bfloat16.
bool read_tile(const TensorView& from, const TileGrid& grid, uint64_t tile, uint16_t* words) {
  const uint64_t first_row = tile / grid.column_tiles() * kTileRows;
  const size_t n_rows = std::min<uint64_t>(kTileRows, grid.rows - first_row), n_columns = grid.words(tile) / kTileRows;
  float values[kTileWords];
  weight_format(from.dtype)
      .decode_tile(from, {first_row, n_rows, tile % grid.column_tiles() * kTileColumns, n_columns}, values,
                   kTileColumns);
  uint32_t lost = 0;
  for (size_t r = 0; r < kTileRows; ++r) {
    const float* row = values + std::min(r, n_rows - 1) * kTileColumns;
    for (size_t c = 0; c < n_columns; ++c) {
      uint32_t bits = 0;
      std::memcpy(&bits, row + c, sizeof bits);
      lost |= bits & 0xffffu;
      words[word_at(r, c)] = static_cast<uint16_t>(bits >> 16);
    }
  }
  return lost == 0;
}

/// Runs work(tile, words) for tiles [first, last) in parallel; throws when a value is no bfloat16.
template <class Work>
void for_tiles(const TensorView& from, const TileGrid& grid, uint64_t first, uint64_t last, const Work& work) {
  std::atomic<bool> exact{true};
  parallel_for(last - first, 1, [&](size_t begin, size_t end) {
    uint16_t words[kTileWords];
    for (uint64_t tile = first + begin; tile < first + end; ++tile) {
      if (!read_tile(from, grid, tile, words)) exact = false;
      work(tile, words);
    }
  });
  if (!exact) {
    fail(ErrorCode::kInvalidArgument,
         "[encode] expected values of bfloat16, which the format keeps without loss, found "
         "{} values that are none",
         dtype_info(from.dtype).name);
  }
}

Counts count_exponents(const TensorView& from, const TileGrid& grid) {
  std::array<std::atomic<uint64_t>, 256> sums{};
  for_tiles(from, grid, 0, grid.tiles(), [&](uint64_t tile, const uint16_t* words) {
    std::array<uint32_t, 256> counts{};
    for (size_t i = 0; i < grid.words(tile); ++i) ++counts[(words[i] >> 7) & 255];
    for (size_t e = 0; e < 256; ++e) {
      if (counts[e] > 0) sums[e].fetch_add(counts[e], std::memory_order_relaxed);
    }
  });
  Counts out{};
  for (size_t e = 0; e < 256; ++e) out[e] = sums[e];
  return out;
}

uint8_t sign_mantissa(uint16_t word) {
  return static_cast<uint8_t>((word >> 8 & 0x80) | (word & 0x7f));
}

/// What both formats share: the grid of tiles, and their encoding in batches that keep memory small.
class TileEncoder : public MatrixEncoder {
 public:
  explicit TileEncoder(const TensorView& from) : grid_{from.rows(), from.columns()} {}

 protected:
  /// Appends the bytes of every tile in order, made by make(tile, words, bytes), in pieces to `out`.
  template <class Make>
  void write_tiles(const TensorView& from, FunctionRef<void(std::span<const std::byte>)> out, const Make& make) const {
    constexpr uint64_t kBatch = 512;
    std::vector<Bytes> parts(kBatch);
    for (uint64_t first = 0; first < grid_.tiles(); first += kBatch) {
      const uint64_t last = std::min(grid_.tiles(), first + kBatch);
      for_tiles(from, grid_, first, last, [&](uint64_t tile, const uint16_t* words) {
        parts[tile - first].clear();
        make(tile, words, parts[tile - first]);
      });
      for (uint64_t tile = first; tile < last; ++tile) out(parts[tile - first]);
    }
  }

  TileGrid grid_;
};

class Df11Encoder : public TileEncoder {
 public:
  explicit Df11Encoder(const TensorView& from) : TileEncoder(from) {
    lengths_ = code_lengths(count_exponents(from, grid_));
    codes_ = canonical_codes(lengths_);
    std::vector<uint32_t> sizes(grid_.tiles());
    for_tiles(from, grid_, 0, grid_.tiles(), [&](uint64_t tile, const uint16_t* words) {
      Bytes bytes;
      encode_tile(tile, words, bytes);
      sizes[tile] = static_cast<uint32_t>(bytes.size() / 8);
    });
    uint64_t place = round_up<uint64_t>(kDf11Directory + 4 * (grid_.tiles() + 1), 8) / 8;
    for (uint64_t tile = 0; tile <= grid_.tiles(); ++tile) {
      directory_.push_back(static_cast<uint32_t>(place));
      if (tile < grid_.tiles()) place += sizes[tile];
    }
    if (place > UINT32_MAX) fail(ErrorCode::kUnsupported, "[encode] a DF11 matrix holds at most 32 GiB");
    bytes_ = 8 * place;
  }

  uint64_t bytes() const override { return bytes_; }

  void write(const TensorView& from, FunctionRef<void(std::span<const std::byte>)> out) const override {
    Bytes head;
    append<uint64_t>(head, bytes_);
    append(head, static_cast<uint32_t>(DType::kDf11));
    append<uint32_t>(head, 0);
    for (uint8_t length : lengths_) append(head, length);
    for (uint32_t place : directory_) append(head, place);
    head.resize(round_up<size_t>(head.size(), 8));
    out(head);
    write_tiles(from, out, [&](uint64_t tile, const uint16_t* words, Bytes& to) { encode_tile(tile, words, to); });
  }

 private:
  void encode_tile(uint64_t tile, const uint16_t* words, Bytes& to) const {
    const size_t n = grid_.words(tile);
    to.resize(kDf11TileHead);
    for (size_t i = 0; i < n; ++i) to.push_back(static_cast<std::byte>(sign_mantissa(words[i])));
    for (size_t q = 0; q < kStreams; ++q) {
      const size_t begin = to.size();
      uint64_t window = 0;
      unsigned used = 0;
      for (size_t i = n / kStreams * q; i < n / kStreams * (q + 1); ++i) {
        const size_t exponent = (words[i] >> 7) & 255;
        window = window << lengths_[exponent] | codes_[exponent];
        for (used += lengths_[exponent]; used >= 8; used -= 8)
          to.push_back(static_cast<std::byte>(window >> (used - 8)));
      }
      if (used > 0) to.push_back(static_cast<std::byte>(window << (8 - used)));
      const auto size = static_cast<uint16_t>(to.size() - begin);
      if (q + 1 < kStreams) std::memcpy(to.data() + 2 * q, &size, sizeof size);
    }
    to.resize(round_up<size_t>(to.size(), 8));
  }

  std::array<uint8_t, 256> lengths_{};
  std::array<uint16_t, 256> codes_{};
  std::vector<uint32_t> directory_;
  uint64_t bytes_ = 0;
};

class Df12Encoder : public TileEncoder {
 public:
  explicit Df12Encoder(const TensorView& from) : TileEncoder(from) {
    const Counts counts = count_exponents(from, grid_);
    uint64_t best = 0;
    for (size_t base = 0; base <= 240; ++base) {
      uint64_t covered = 0;
      for (size_t e = base; e < base + 15; ++e) covered += counts[e];
      if (covered <= best) continue;
      best = covered;
      base_ = static_cast<uint8_t>(base);
    }
    directory_.resize(grid_.tiles() + 1);
    for_tiles(from, grid_, 0, grid_.tiles(), [&](uint64_t tile, const uint16_t* words) {
      uint32_t escapes = 0;
      for (size_t i = 0; i < grid_.words(tile); ++i) escapes += is_escape(words[i]);
      directory_[tile + 1] = escapes;
    });
    uint64_t sum = 0;
    for (uint32_t& entry : directory_) entry = static_cast<uint32_t>(sum += entry);
    if (sum > UINT32_MAX) fail(ErrorCode::kUnsupported, "[encode] a DF12 matrix holds at most 2^32 escapes");
    bytes_ = kDf12Directory + 4 * (grid_.tiles() + 1) + grid_.stripes() * kTileRows * grid_.columns / 2 * 3 +
             kDf12Escape * sum;
  }

  uint64_t bytes() const override { return bytes_; }

  void write(const TensorView& from, FunctionRef<void(std::span<const std::byte>)> out) const override {
    Bytes head;
    append<uint64_t>(head, bytes_);
    append(head, static_cast<uint32_t>(DType::kDf12));
    append<uint32_t>(head, base_);
    for (uint32_t entry : directory_) append(head, entry);
    out(head);
    Bytes escapes(kDf12Escape * size_t{directory_.back()});
    write_tiles(from, out, [&](uint64_t tile, const uint16_t* words, Bytes& to) {
      const size_t n = grid_.words(tile);
      for (size_t i = 0; i < n; i += 64) {
        for (size_t j = i; j < i + 32; ++j)
          to.push_back(static_cast<std::byte>(nibble(words[j]) | nibble(words[j + 32]) << 4));
      }
      for (size_t i = 0; i < n; ++i) to.push_back(static_cast<std::byte>(sign_mantissa(words[i])));
      std::byte* list = escapes.data() + kDf12Escape * size_t{directory_[tile]};
      for (size_t i = 0; i < n; ++i) {
        if (!is_escape(words[i])) continue;
        const auto place = static_cast<uint16_t>(i);
        std::memcpy(list, &place, sizeof place);
        list[2] = static_cast<std::byte>(words[i] >> 7);
        list += kDf12Escape;
      }
    });
    out(escapes);
  }

 private:
  bool is_escape(uint16_t word) const { return (((word >> 7) & 255u) - base_) >= 15u; }
  unsigned nibble(uint16_t word) const { return is_escape(word) ? 15 : ((word >> 7) & 255u) - base_; }

  uint8_t base_ = 0;
  std::vector<uint32_t> directory_;  ///< Escapes before each tile.
  uint64_t bytes_ = 0;
};

/// What both formats share of reading.
class TileFormat : public WeightFormat {
 public:
  std::string misfit(const Shape& shape) const override {
    if (shape.rank() != 2) return "a matrix";
    if (shape.from_last(0) % 4 != 0) return "rows of a multiple of 4 elements";
    return {};
  }

  void decode_tile(const TensorView& stored, const TileRange& range, float* out, size_t stride) const override {
    const TileGrid grid{stored.rows(), stored.columns()};
    uint16_t words[kTileWords];
    const uint64_t end_row = range.first_row + range.n_rows, end_column = range.first_column + range.n_columns;
    for (uint64_t row = range.first_row / kTileRows * kTileRows; row < end_row; row += kTileRows) {
      for (uint64_t column = range.first_column / kTileColumns * kTileColumns; column < end_column;
           column += kTileColumns) {
        decode(stored.data, grid, row / kTileRows * grid.column_tiles() + column / kTileColumns, words);
        const uint64_t last_column = std::min(column + kTileColumns, end_column);
        for (uint64_t r = std::max(row, range.first_row); r < std::min(row + kTileRows, end_row); ++r) {
          for (uint64_t c = std::max(column, range.first_column); c < last_column; ++c) {
            // Copied as bits: a signalling NaN must stay one.
            const uint32_t bits = uint32_t{words[word_at(r - row, c - column)]} << 16;
            std::memcpy(out + (r - range.first_row) * stride + (c - range.first_column), &bits, sizeof bits);
          }
        }
      }
    }
  }

 protected:
  virtual void decode(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint16_t* words) const = 0;

  [[noreturn]] static void damaged(const TensorView& stored, const std::string& name, std::string_view what) {
    fail(ErrorCode::kCorruptData, "[read weights] tensor '{}': expected a valid {} stream, found {}", name,
         dtype_info(stored.dtype).name, what);
  }
};

class Df11Format : public TileFormat {
 public:
  std::unique_ptr<MatrixEncoder> encoder(const TensorView& from) const override {
    return std::make_unique<Df11Encoder>(from);
  }

  void validate(const TensorView& stored, const std::string& name) const override {
    const TileGrid grid{stored.rows(), stored.columns()};
    const uint64_t total = stored.bytes(), tiles = grid.tiles();
    if (tiles > total / 4 || kDf11Directory + 4 * (tiles + 1) > total)
      damaged(stored, name, "a directory beyond its end");
    std::array<uint8_t, 256> lengths;
    std::memcpy(lengths.data(), stored.data + kDf11Lengths, lengths.size());
    if (!is_complete(lengths)) damaged(stored, name, "code lengths of no complete prefix code");
    uint64_t begin = uint64_t{8} * load<uint32_t>(stored.data + kDf11Directory);
    if (begin < kDf11Directory + 4 * (tiles + 1)) damaged(stored, name, "a first tile inside the directory");
    for (uint64_t tile = 0; tile < tiles; ++tile) {
      const uint64_t end = uint64_t{8} * load<uint32_t>(stored.data + kDf11Directory + 4 * (tile + 1));
      if (end > total || end < begin || end - begin < kDf11TileHead) damaged(stored, name, "tiles out of order");
      uint64_t used = kDf11TileHead + grid.words(tile);
      for (size_t q = 0; q + 1 < kStreams; ++q) used += load<uint16_t>(stored.data + begin + 2 * q);
      if (used > end - begin) damaged(stored, name, "a tile longer than its place");
      begin = end;
    }
    if (begin != total) damaged(stored, name, "bytes behind the last tile");
  }

 protected:
  void decode(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint16_t* words) const override {
    any::decode_df11(stored, grid, tile, words);
  }
};

class Df12Format : public TileFormat {
 public:
  std::unique_ptr<MatrixEncoder> encoder(const TensorView& from) const override {
    return std::make_unique<Df12Encoder>(from);
  }

  void validate(const TensorView& stored, const std::string& name) const override {
    const TileGrid grid{stored.rows(), stored.columns()};
    const uint64_t total = stored.bytes(), tiles = grid.tiles();
    const auto words = checked_mul<uint64_t>(grid.stripes() * kTileRows, grid.columns);
    if (!words || *words > total || tiles > total / 4) damaged(stored, name, "fewer bytes than weights");
    const uint64_t fixed = kDf12Directory + 4 * (tiles + 1) + *words / 2 * 3;
    if (fixed > total || (total - fixed) % kDf12Escape != 0) damaged(stored, name, "a size of no whole escapes");
    const uint64_t n_escapes = (total - fixed) / kDf12Escape;
    if (static_cast<unsigned>(stored.data[kDf12Base]) > 240) damaged(stored, name, "a base exponent above 240");
    uint32_t before = 0;
    for (uint64_t tile = 0; tile <= tiles; ++tile) {
      const auto entry = load<uint32_t>(stored.data + kDf12Directory + 4 * tile);
      if (entry < before || entry > n_escapes) damaged(stored, name, "escapes out of order");
      int last = -1;
      for (uint64_t e = before; tile > 0 && e < entry; ++e) {
        const int place = load<uint16_t>(stored.data + fixed + kDf12Escape * e);
        if (place <= last || static_cast<size_t>(place) >= grid.words(tile - 1)) {
          damaged(stored, name, "an escape outside its tile or out of order");
        }
        last = place;
      }
      before = entry;
    }
    if (before != n_escapes || load<uint32_t>(stored.data + kDf12Directory) != 0) {
      damaged(stored, name, "escapes of no tile");
    }
  }

 protected:
  void decode(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint16_t* words) const override {
    any::decode_df12(any::df12_tile(stored, grid, tile), words);
  }
};

}  // namespace

std::unique_ptr<WeightFormat> make_df11() {
  return std::make_unique<Df11Format>();
}
std::unique_ptr<WeightFormat> make_df12() {
  return std::make_unique<Df12Format>();
}

}  // namespace mneme::dfloat
