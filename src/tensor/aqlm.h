#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/weight_format.h"

/// AQLM (arXiv 2401.06118, here after arXiv 2503.07103): additive vector quantisation. A matrix W [rows, columns] is
/// cut into groups of g consecutive columns; each group of a row is a sum of M vectors, one of each codebook:
///
///     w[r, g j .. g j + g - 1] = s[r] * sum over m < M of C_m[code[r, j, m]],   C_m [2^B, g]
///
/// The codebooks belong to the matrix. Bits a weight: M B / g, and 16 / columns for scales, and M 2^B g e / (rows
/// columns) for codebooks whose values take e bits: so settings with large codebooks want large matrices. With M = 1
/// and g = 1 this is scalar k-means: unevenly spaced levels, one table a matrix.
///
/// Stream, all little-endian: u64 bytes, u32 type id, u8 M from 1 to 8, u8 B from 1 to 16, u8 g of 1, 2, 4 or 8, u8
/// values of codebooks (0: bfloat16, 1: signed bytes); f32 [M] factors of the codebooks; zeros up to byte 64; then
/// codebooks [M][2^B][g], row scales f16 [P] and codes, each from a multiple of 64 bytes on. P is rows rounded up
/// to 32. A value of a codebook is the stored one times the factor.
///
/// Codes are [P / 32][groups][M][run]; a run has the codes of 32 rows in planes from their lowest bits on: as many
/// planes of 8 bits as fit (byte r: row r), then one of 4 (byte i: rows i and i + 16 from the low nibble on), of 2
/// (byte i: rows i, i + 8, i + 16, i + 24 from the lowest bits on) and of 1 (bit r of a u32: row r) as the rest of B
/// has these bits: 4 B bytes. So products with tables read one stream and get vectors of 32 codes by shifts and masks.
/// Columns that fill up the last group, and rows beyond the last, mean nothing.
///
/// Not here: groups of several outputs, codebooks shared by matrices. weights/aqlm_quantizer.h chooses the codes.
namespace mneme::aqlm {

constexpr uint32_t kMostCodebooks = 8, kMostBits = 16, kMostGroup = 8;
constexpr size_t kStripe = 32;
constexpr size_t kSchemeAt = 12, kFactorsAt = 16, kBooksAt = 64;

/// How the values of codebooks are stored.
enum class Entries : uint8_t { kBf16 = 0, kInt8 = 1 };

/// What a user chooses: "AQLM2x8g8" is 2 codebooks of 2^8 vectors of 8 weights.
struct Scheme {
  uint32_t codebooks = 2, bits = 8, group = 8;

  bool is_valid() const {
    return codebooks >= 1 && codebooks <= kMostCodebooks && bits >= 1 && bits <= kMostBits &&
           (group == 1 || group == 2 || group == 4 || group == 8);
  }
  bool operator==(const Scheme&) const = default;
};

/// Where the parts of a matrix lie, bytes from the start of its stream. The scheme must be valid.
struct Layout {
  uint64_t rows = 0, columns = 0;
  Scheme scheme;
  Entries entries = Entries::kBf16;

  uint64_t groups() const { return (columns + scheme.group - 1) / scheme.group; }
  uint64_t stripes() const { return (rows + kStripe - 1) / kStripe; }
  uint64_t book_values() const { return uint64_t{scheme.group} << scheme.bits; }
  uint64_t value_bytes() const { return entries == Entries::kBf16 ? 2 : 1; }
  uint64_t book(uint64_t m) const { return kBooksAt + m * book_values() * value_bytes(); }
  uint64_t scales() const { return (book(scheme.codebooks) + 63) / 64 * 64; }
  uint64_t codes() const { return (scales() + 2 * kStripe * stripes() + 63) / 64 * 64; }
  uint64_t run_bytes() const { return kStripe * scheme.bits / 8; }
  /// Codes of codebook `m` for group `j` of the rows of a stripe.
  uint64_t run(uint64_t stripe, uint64_t j, uint64_t m) const {
    return codes() + ((stripe * groups() + j) * scheme.codebooks + m) * run_bytes();
  }
  uint64_t bytes() const { return run(stripes(), 0, 0); }
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(bytes()) / (static_cast<double>(rows) * static_cast<double>(columns));
  }
};

/// Layout of a matrix for a scheme: bytes for codebooks that would cost more than a sixteenth of a bit a weight as
/// bfloat16.
Layout layout_for(uint64_t rows, uint64_t columns, const Scheme& scheme);
/// The scheme with as many bits as leave four groups of the matrix for each vector of a codebook. The matrix must not
/// be a misfit.
Scheme capped(const Scheme& scheme, uint64_t rows, uint64_t columns);
/// Layout of a valid stream.
Layout layout_of(uint64_t rows, uint64_t columns, const std::byte* stream);

/// Codebooks as floats [M][2^B][g], rounded to what a stream can hold.
struct Codebooks {
  std::vector<float> values, factors;
};
/// Rounds `values` for a layout, with new factors.
Codebooks rounded(const Layout& layout, std::vector<float> values);

/// Writes head, codebooks and scales [rows] to a stream of layout.bytes() zeros. Scales are rounded to half precision.
void write_head(const Layout& layout, const Codebooks& books, std::span<const float> scales, std::byte* stream);
/// Writes the codes of 32 rows to layout.run_bytes() zeros.
void pack_run(uint32_t bits, const uint16_t* codes, std::byte* run);

/// The codebooks of a valid stream as floats [M][2^B][g].
std::vector<float> read_books(const Layout& layout, const std::byte* stream);

std::unique_ptr<WeightFormat> make_format();

}  // namespace mneme::aqlm
