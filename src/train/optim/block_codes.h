#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/// 8-bit optimiser states by block-wise dynamic quantisation (arXiv 2110.02861): a block of 256 values is stored as its
/// largest magnitude (f32) and one code a value. The levels are dense near 1 and reach down seven decades: decade i =
/// 0..6 covers [10^(i-7), 10^(i-6)] with 2^i levels of each sign, or 2^(i+1) levels when there is no sign; 0 and 1
/// complete 256.
namespace mneme::train {

constexpr size_t kCodeBlock = 256;

enum class CodeKind : uint8_t { kSigned, kUnsigned };

/// The levels of a kind, ascending; code c stands for levels[c] * scale.
const std::array<float, 256>& code_levels(CodeKind kind);

/// Encodes up to kCodeBlock finite values (unsigned: none below 0); returns their scale. With |x| in decade i, in units
/// of the scale, the error is at most 0.45 * 10^(i-6) / 2^i, half of that when unsigned. Unsigned values above 0 get a
/// level above 0, so that an Adam step is never divided by the root of a second moment that vanished.
float encode_block(CodeKind kind, const float* x, size_t n, uint8_t* codes);

void decode_block(CodeKind kind, const uint8_t* codes, size_t n, float scale, float* x);

}  // namespace mneme::train
