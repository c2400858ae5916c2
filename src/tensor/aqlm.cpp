#include "tensor/aqlm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"

#define MNEME_TARGET any
#include "tensor/aqlm_tile-inl.h"

namespace mneme::aqlm {
namespace {

/// Beyond it sizes could overflow.
constexpr uint64_t kMostExtent = uint64_t{1} << 28;
/// Groups that each vector of a codebook should have to stand for.
constexpr uint64_t kGroupsAVector = 4;
constexpr uint64_t kLeastWeights = 2 * kGroupsAVector * kMostGroup;

template <typename T>
T load(const std::byte* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

Scheme read_scheme(const std::byte* stream) {
  return {static_cast<uint32_t>(stream[kSchemeAt]), static_cast<uint32_t>(stream[kSchemeAt + 1]),
          static_cast<uint32_t>(stream[kSchemeAt + 2])};
}

float read_value(const Layout& layout, const std::byte* stream, uint64_t m, uint64_t i) {
  const std::byte* book = stream + layout.book(m);
  return layout.entries == Entries::kInt8 ? static_cast<float>(load<int8_t>(book + i))
                                          : bf16_to_f32(load<uint16_t>(book + 2 * i));
}

class Format : public WeightFormat {
 public:
  std::string misfit(const Shape& shape) const override {
    if (shape.rank() != 2) return "a matrix";
    if (shape[0] > kMostExtent || shape[1] > kMostExtent) return "at most 2^28 rows and columns";
    if (shape[0] * shape[1] < kLeastWeights) return fmt::format("a matrix of at least {} weights", kLeastWeights);
    return {};
  }

  std::unique_ptr<MatrixEncoder> encoder(const TensorView&) const override {
    fail(ErrorCode::kUnsupported, "[encode] the codes of an AQLM matrix are searched for: mneme quantize");
  }

  void validate(const TensorView& stored, const std::string& name) const override {
    const auto damaged = [&](const std::string& what) {
      fail(ErrorCode::kCorruptData, "[read weights] tensor '{}': expected a valid AQLM stream, found {}", name, what);
    };
    if (!misfit(stored.shape).empty()) damaged("a shape of " + stored.shape.to_string());
    if (stored.stream_bytes < kBooksAt) damaged("no codebooks");
    const Scheme scheme = read_scheme(stored.data);
    if (!scheme.is_valid()) {
      damaged(fmt::format("{} codebooks of {} bits for groups of {}", scheme.codebooks, scheme.bits, scheme.group));
    }
    if (const auto entries = static_cast<uint32_t>(stored.data[kSchemeAt + 3]); entries > 1) {
      damaged(fmt::format("values of kind {}", entries));
    }
    const Layout layout = layout_of(stored.rows(), stored.columns(), stored.data);
    if (stored.stream_bytes != layout.bytes()) {
      damaged(fmt::format("{} bytes in place of {}", stored.stream_bytes, layout.bytes()));
    }
    for (uint64_t m = 0; m < scheme.codebooks; ++m) {
      if (!std::isfinite(load<float>(stored.data + kFactorsAt + 4 * m))) damaged("a factor that is not finite");
      for (uint64_t i = 0; i < layout.book_values(); ++i) {
        if (!std::isfinite(read_value(layout, stored.data, m, i))) damaged("a codebook that is not finite");
      }
    }
    for (uint64_t r = 0; r < kStripe * layout.stripes(); ++r) {
      if (!std::isfinite(f16_to_f32(load<uint16_t>(stored.data + layout.scales() + 2 * r)))) {
        damaged("a scale that is not finite");
      }
    }
  }

  void decode_tile(const TensorView& stored, const TileRange& range, float* out, size_t stride) const override {
    const Layout layout = layout_of(stored.rows(), stored.columns(), stored.data);
    const uint64_t g = layout.scheme.group, first_group = range.first_column / g,
                   last_group = (range.first_column + range.n_columns + g - 1) / g;
    const size_t width = (last_group - first_group) * g, skipped = range.first_column - first_group * g;
    std::vector<float> wide(kStripe * width);
    for (uint64_t row = range.first_row; row < range.first_row + range.n_rows;) {
      const uint64_t in_stripe = row % kStripe;
      const uint64_t n = std::min(kStripe - in_stripe, range.first_row + range.n_rows - row);
      any::decode_rows(layout, stored.data, row / kStripe, in_stripe, n, first_group, last_group, wide.data(), width);
      for (uint64_t r = 0; r < n; ++r, out += stride) {
        std::copy_n(wide.data() + r * width + skipped, range.n_columns, out);
      }
      row += n;
    }
  }
};

}  // namespace

Layout layout_for(uint64_t rows, uint64_t columns, const Scheme& scheme) {
  Layout out{rows, columns, scheme, Entries::kBf16};
  const uint64_t bits = 16 * out.book_values() * scheme.codebooks;
  if (16 * bits > rows * columns) out.entries = Entries::kInt8;
  return out;
}

Scheme capped(const Scheme& scheme, uint64_t rows, uint64_t columns) {
  Scheme out = scheme;
  const uint64_t groups = rows * ((columns + scheme.group - 1) / scheme.group);
  while (out.bits > 1 && groups < kGroupsAVector << out.bits) --out.bits;
  return out;
}

Layout layout_of(uint64_t rows, uint64_t columns, const std::byte* stream) {
  return {rows, columns, read_scheme(stream), static_cast<Entries>(stream[kSchemeAt + 3])};
}

Codebooks rounded(const Layout& layout, std::vector<float> values) {
  Codebooks out{std::move(values), {}};
  const uint64_t n = layout.book_values();
  for (uint64_t m = 0; m < layout.scheme.codebooks; ++m) {
    const std::span<float> book(out.values.data() + m * n, n);
    float factor = 1;
    if (layout.entries == Entries::kInt8) {
      float most = 0;
      for (float v : book) most = std::max(most, std::fabs(v));
      factor = most > 0 ? most / 127 : 1;
    }
    out.factors.push_back(factor);
    for (float& v : book) {
      v = layout.entries == Entries::kInt8 ? factor * std::nearbyint(v / factor) : bf16_to_f32(f32_to_bf16(v));
    }
  }
  return out;
}

void write_head(const Layout& layout, const Codebooks& books, std::span<const float> scales, std::byte* stream) {
  const auto put = [&](uint64_t at, auto value) { std::memcpy(stream + at, &value, sizeof value); };
  put(0, layout.bytes());
  put(8, static_cast<uint32_t>(DType::kAqlm));
  stream[kSchemeAt] = static_cast<std::byte>(layout.scheme.codebooks);
  stream[kSchemeAt + 1] = static_cast<std::byte>(layout.scheme.bits);
  stream[kSchemeAt + 2] = static_cast<std::byte>(layout.scheme.group);
  stream[kSchemeAt + 3] = static_cast<std::byte>(layout.entries);
  const uint64_t n = layout.book_values();
  for (uint64_t m = 0; m < layout.scheme.codebooks; ++m) {
    put(kFactorsAt + 4 * m, books.factors[m]);
    for (uint64_t i = 0; i < n; ++i) {
      const float v = books.values[m * n + i];
      if (layout.entries == Entries::kInt8) {
        put(layout.book(m) + i, static_cast<int8_t>(std::lrint(v / books.factors[m])));
      } else {
        put(layout.book(m) + 2 * i, f32_to_bf16(v));
      }
    }
  }
  for (uint64_t r = 0; r < layout.rows; ++r) put(layout.scales() + 2 * r, f32_to_f16(scales[r]));
}

void pack_run(uint32_t bits, const uint16_t* codes, std::byte* run) {
  uint32_t done = 0;
  const auto add = [&](size_t at, uint32_t value) { run[at] |= static_cast<std::byte>(value); };
  for (; bits - done >= 8; done += 8, run += kStripe) {
    for (size_t r = 0; r < kStripe; ++r) add(r, codes[r] >> done & 255u);
  }
  const uint32_t rest = bits - done;
  for (uint32_t width = 4; width > 0; width /= 2) {
    if ((rest & width) == 0) continue;
    const size_t n = kStripe * width / 8;
    for (size_t r = 0; r < kStripe; ++r) {
      const uint32_t part = codes[r] >> done & ((1u << width) - 1);
      width == 1 ? add(r / 8, part << (r % 8)) : add(r % n, part << (r / n * width));
    }
    done += width;
    run += n;
  }
}

std::vector<float> read_books(const Layout& layout, const std::byte* stream) {
  const uint64_t n = layout.book_values();
  std::vector<float> out(layout.scheme.codebooks * n);
  for (uint64_t m = 0; m < layout.scheme.codebooks; ++m) {
    const auto factor = load<float>(stream + kFactorsAt + 4 * m);
    for (uint64_t i = 0; i < n; ++i) out[m * n + i] = factor * read_value(layout, stream, m, i);
  }
  return out;
}

std::unique_ptr<WeightFormat> make_format() {
  return std::make_unique<Format>();
}

}  // namespace mneme::aqlm
