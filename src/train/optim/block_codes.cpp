#include "train/optim/block_codes.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace mneme::train {
namespace {

constexpr int kDecades = 7;

struct Codebook {
  std::array<float, 256> levels{};
  std::array<float, 255> borders{};  ///< borders[c] lies in the middle between levels c and c + 1.
};

Codebook make_codebook(CodeKind kind) {
  std::vector<double> levels = {0.0, 1.0};
  for (int decade = 0; decade < kDecades; ++decade) {
    const int n = (kind == CodeKind::kSigned ? 1 : 2) << decade;
    const double top = std::pow(10.0, decade - kDecades + 1);
    for (int k = 0; k < n; ++k) {
      // Mid-points of n equal parts of [0.1, 1].
      const double level = top * (0.1 + 0.9 * (k + 0.5) / n);
      levels.push_back(level);
      if (kind == CodeKind::kSigned) levels.push_back(-level);
    }
  }
  std::sort(levels.begin(), levels.end());
  Codebook book;
  for (size_t c = 0; c < levels.size(); ++c) book.levels.at(c) = static_cast<float>(levels[c]);
  for (size_t c = 0; c + 1 < levels.size(); ++c)
    book.borders.at(c) = static_cast<float>((levels[c] + levels[c + 1]) / 2);
  return book;
}

const Codebook& codebook(CodeKind kind) {
  static const Codebook with_sign = make_codebook(CodeKind::kSigned), without = make_codebook(CodeKind::kUnsigned);
  return kind == CodeKind::kSigned ? with_sign : without;
}

/// Number of borders below x: the nearest level. Binary search without branches, eight steps for 255 borders.
uint8_t nearest(const std::array<float, 255>& borders, float x) {
  size_t code = 0;
  for (size_t step = 128; step > 0; step /= 2) code += borders[code + step - 1] < x ? step : 0;
  return static_cast<uint8_t>(code);
}

}  // namespace

const std::array<float, 256>& code_levels(CodeKind kind) {
  return codebook(kind).levels;
}

float encode_block(CodeKind kind, const float* x, size_t n, uint8_t* codes) {
  const Codebook& book = codebook(kind);
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  // A block of zeros: any scale will do.
  const float unit = largest > 0 ? largest : 1.0f;
  for (size_t i = 0; i < n; ++i) {
    codes[i] = nearest(book.borders, x[i] / unit);
    if (kind == CodeKind::kUnsigned && codes[i] == 0 && x[i] > 0) codes[i] = 1;
  }
  return largest;
}

void decode_block(CodeKind kind, const uint8_t* codes, size_t n, float scale, float* x) {
  const Codebook& book = codebook(kind);
  for (size_t i = 0; i < n; ++i) x[i] = book.levels[codes[i]] * scale;
}

}  // namespace mneme::train
