#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

/// BitMoD (arXiv 2411.11745): 3- and 4-bit weights whose groups of 128 choose one of four sets of levels. A float of 3
/// or 4 bits has a code for minus zero that says nothing; a group gives it one of four special values instead:
///
///     w = s * L[code],  L = base levels and one special level
///
///     3 bits   base 0 +-1 +-2 +-4                      special +3, -3 (extra resolution) or +6, -6 (extra asymmetry)
///     4 bits   base 0 +-1 +-2 +-3 +-4 +-6 +-8 +-12     special +10, -10 or +16, -16
///
/// A code is sign, then index of the magnitude. Each group takes the choice with the smallest squared error under
/// s = max|w| / max|level|, the earlier of equal ones, in the order +ER, -ER, +EA, -EA.
///
/// Block of 128 weights in files: one half-precision word, whose sign bit is the sign of the special level, whose
/// lowest bit tells EA from ER and whose rest is the scale; then the codes: 64 bytes with weights 0..63 in the low
/// and 64..127 in the high nibbles, or 32 bytes with the two magnitude bits of weights j, j + 32, j + 64, j + 96 from
/// the lowest bits on and 16 bytes of signs. Taking both bits from the scale costs no quality, since codes are chosen
/// for the rounded scale, and saves the selector plane of the paper: 4.125 and 3.125 bits a weight.
///
/// Not here: the bit-serial accelerator, but for its cycle model; 8-bit scales of the second level.
namespace mneme::bitmod {

constexpr size_t kGroup = 128;

/// Sets of levels in the order in which they are tried.
enum class Special : uint8_t { kResolutionPlus, kResolutionMinus, kAsymmetryPlus, kAsymmetryMinus };
constexpr std::array<Special, 4> kSpecials = {Special::kResolutionPlus, Special::kResolutionMinus,
                                              Special::kAsymmetryPlus, Special::kAsymmetryMinus};

/// What a word at the head of a block says.
struct GroupHead {
  float scale;
  Special special;
};
GroupHead unpack_head(uint16_t word);
/// `scale` is rounded to what the word can hold and clamped to [1e-5, 1e4].
uint16_t pack_head(float scale, Special special);

/// The special level of `bits` 3 or 4.
int special_level(int bits, Special special);
/// Levels by code, 2^bits of them.
std::array<int8_t, 16> levels(int bits, Special special);

/// Rule by which a group of kGroup weights is stored, for tests and measurements of the parts of the method.
struct GroupFit {
  Special special;
  float scale;   ///< As packed.
  double error;  ///< Sum of importance * (w - stored)^2.
};
/// The best of `candidates` for a group; importance may be null. With importance, scales down to 0.6 of the reference
/// rule are tried too.
GroupFit fit_group(int bits, const float* w, const float* importance, std::span<const Special> candidates = kSpecials);
/// Codes of a group under a head that is already chosen; a weight half-way between levels takes the lower one.
void choose_codes(int bits, GroupHead head, const float* w, uint8_t* codes);

/// Cycles that one weight of `bits` takes in a lane of the paper's bit-serial accelerator (a model of that hardware,
/// not of this machine): terms of at most two signed powers of two for 3 and 4 bits, radix-4 Booth digits above.
int bit_serial_cycles(int bits);

}  // namespace mneme::bitmod
