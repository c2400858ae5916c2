#include "eval/weight_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>

#include "base/half.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "eval/large_matrix.h"
#include "tensor/bipolar.h"
#include "tensor/bitmod.h"
#include "tensor/weight_format.h"
#include "weights/codebook_kmeans.h"

namespace mneme {
namespace {

std::vector<float> gaussian(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = random.next_normal();
  return out;
}

constexpr size_t kRows = 32768, kColumns = 2048;
constexpr const char* kShape = "32768 x 2048 weights of normal values, one token, all threads";

double rate(DType dtype, int plane_bits = 0) {
  LargeMatrix matrix(dtype, kRows, kColumns, plane_bits);
  return matrix.weights() / matrix.seconds(1);
}

ClaimMeasurement speed_ratio(DType fast, int plane_bits, DType slow) {
  const double a = rate(fast, plane_bits), b = rate(slow);
  return {a / b, fmt::format("{:.1f} against {:.1f} billion weights/s; {}", a / 1e9, b / 1e9, kShape)};
}

/// Words that differ after a round trip: every pattern of 16 bits in random order, then normal values.
ClaimMeasurement lossless_errors(DType dtype) {
  std::vector<uint16_t> words(65536);
  std::iota(words.begin(), words.end(), uint16_t{0});
  PhiloxStream random(13);
  for (size_t i = words.size(); i > 1; --i) std::swap(words[i - 1], words[random.next_below(i)]);
  words.resize(size_t{10} << 20);
  for (size_t i = 65536; i < words.size(); ++i) words[i] = f32_to_bf16(0.02f * random.next_normal());
  constexpr size_t kWidth = 1024;
  const TensorView from{DType::kBF16, Shape{words.size() / kWidth, kWidth},
                        reinterpret_cast<const std::byte*>(words.data())};
  std::vector<std::byte> bytes;
  const auto encoder = weight_format(dtype).encoder(from);
  encoder->write(from, [&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); });
  const TensorView stored{dtype, from.shape, bytes.data(), bytes.size()};
  weight_format(dtype).validate(stored, "claim");
  size_t wrong = 0;
  std::vector<float> row(kWidth);
  for (uint64_t r = 0; r < stored.rows(); ++r) {
    weight_format(dtype).decode_tile(stored, {r, 1, 0, kWidth}, row.data(), kWidth);
    for (size_t i = 0; i < kWidth; ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, &row[i], sizeof bits);
      wrong += bits != uint32_t{words[r * kWidth + i]} << 16;
    }
  }
  return {static_cast<double>(wrong), "every 16-bit pattern in random order and 10.4 million normal values"};
}

ClaimMeasurement share_of_bf16(DType dtype) {
  const double bits = LargeMatrix(dtype, 4096, kColumns).bits_per_weight();
  return {bits / 16, fmt::format("{:.3f} bits a weight, 4096 x 2048 normal values of deviation 0.02", bits)};
}

/// Tokens of context that fit beside the weights, at a memory of 1.08 times the BF16 weights.
ClaimMeasurement context_ratio() {
  const double share = share_of_bf16(DType::kDf11).value;
  return {(1.08 - share) / 0.08,
          fmt::format("by accounting: (1.08 - {:.4f}) / (1.08 - 1) of the BF16 bytes are left for context", share)};
}

ClaimMeasurement batch_overhead() {
  LargeMatrix df11(DType::kDf11, 8192, kColumns), bf16(DType::kBF16, 8192, kColumns);
  const double a = df11.seconds(512), b = bf16.seconds(512);
  return {a / b, fmt::format("{:.1f} against {:.1f} ms for 8192 x 2048 weights and 512 tokens", 1e3 * a, 1e3 * b)};
}

/// Relative squared errors of groups of 128 normal weights.
double bitmod_error(int bits, std::span<const bitmod::Special> candidates) {
  constexpr size_t kGroups = 4000;
  const std::vector<float> w = gaussian(kGroups * bitmod::kGroup, 14);
  double error = 0, norm = 0;
  for (size_t g = 0; g < kGroups; ++g)
    error += bitmod::fit_group(bits, w.data() + g * bitmod::kGroup, nullptr, candidates).error;
  for (float v : w) norm += static_cast<double>(v) * static_cast<double>(v);
  return error / norm;
}

/// The same of integers with a minimum, q = round((w - low) / s), s = (high - low) / (2^bits - 1).
double asymmetric_error(int bits) {
  constexpr size_t kGroups = 4000;
  const std::vector<float> w = gaussian(kGroups * bitmod::kGroup, 14);
  double error = 0, norm = 0;
  for (size_t g = 0; g < kGroups; ++g) {
    const float* group = w.data() + g * bitmod::kGroup;
    const auto [low, high] = std::minmax_element(group, group + bitmod::kGroup);
    const float scale = (*high - *low) / static_cast<float>((1 << bits) - 1);
    for (size_t i = 0; i < bitmod::kGroup; ++i) {
      const double e = static_cast<double>(group[i] - (*low + scale * std::round((group[i] - *low) / scale)));
      error += e * e;
      norm += static_cast<double>(group[i]) * static_cast<double>(group[i]);
    }
  }
  return error / norm;
}

ClaimMeasurement bitmod_table() {
  const struct {
    int bits;
    double er, ea, both;
  } known[] = {{3, .0471, .0387, .0380}, {4, .0099, .0115, .0096}};
  const std::span all(bitmod::kSpecials);
  double worst = 0;
  for (const auto& k : known) {
    worst = std::max({worst, std::abs(bitmod_error(k.bits, all.first(2)) / k.er - 1),
                      std::abs(bitmod_error(k.bits, all.last(2)) / k.ea - 1),
                      std::abs(bitmod_error(k.bits, all) / k.both - 1)});
  }
  return {worst, "extra resolution, extra asymmetry and both at 3 and 4 bits, 4000 groups of 128 normal weights"};
}

ClaimMeasurement bitmod_against_integers(int bits) {
  const double a = bitmod_error(bits, bitmod::kSpecials), b = asymmetric_error(bits);
  return {
      a / b,
      fmt::format("relative squared error {:.4f} against {:.4f} of {} bits with minimum, groups of 128 normal weights",
                  a, b, bits)};
}

/// Largest difference between products by planes and integer sums, over all widths.
ClaimMeasurement plane_errors() {
  constexpr size_t kWidth = 256, kOutputs = 32, kTokens = 2;
  PhiloxStream random(15);
  double worst = 0;
  for (int weight_bits = 1; weight_bits <= 8; ++weight_bits) {
    const DType dtype =
        static_cast<DType>(static_cast<uint32_t>(DType::kBipolar1) + static_cast<uint32_t>(weight_bits) - 1);
    std::vector<float> w(kOutputs * kWidth);
    for (size_t i = 0; i < w.size(); ++i) {
      const auto code = static_cast<unsigned>(random.next_below(uint64_t{1} << weight_bits));
      w[i] = static_cast<float>(i % 128 == 5 ? bipolar::largest(weight_bits) : bipolar::value(weight_bits, code));
    }
    std::vector<std::byte> blocks(row_bytes(dtype, w.size()));
    dtype_info(dtype).encode(w.data(), nullptr, blocks.data(), w.size());
    for (int bits = 1; bits <= 8; ++bits) {
      std::vector<float> x(kTokens * kWidth), y(kTokens * kOutputs);
      for (size_t i = 0; i < x.size(); ++i) {
        const auto code = static_cast<unsigned>(random.next_below(uint64_t{1} << bits));
        x[i] = static_cast<float>(i % 128 == 9 ? bipolar::largest(bits) : bipolar::value(bits, code));
      }
      Ledger ledger;
      kernels::MatmulInput input(ledger);
      input.set(x.data(), kTokens, kWidth);
      kernels::Matrix matrix{dtype,  kernels::Layout::kPlain, kOutputs,
                             kWidth, blocks.data(),           static_cast<uint8_t>(bits)};
      kernels::matmul(matrix, input, nullptr, y.data(), kOutputs);
      for (size_t i = 0; i < y.size(); ++i) {
        double sum = 0;
        for (size_t k = 0; k < kWidth; ++k) {
          sum += static_cast<double>(w[i % kOutputs * kWidth + k]) * static_cast<double>(x[i / kOutputs * kWidth + k]);
        }
        worst = std::max(worst, std::abs(sum - static_cast<double>(y[i])));
      }
    }
  }
  return {worst, "1 to 8 bits times 1 to 8 bits, 32 outputs, 256 columns"};
}

/// The least speed of what the program chooses, bit-planes or 8 bits, over that of the faster of both.
ClaimMeasurement choice_of_planes() {
  double worst = 1;
  std::string table;
  for (int weight_bits = 1; weight_bits <= 4; ++weight_bits) {
    const auto dtype =
        static_cast<DType>(static_cast<uint32_t>(DType::kBipolar1) + static_cast<uint32_t>(weight_bits) - 1);
    const double wide = LargeMatrix(dtype, kRows, kColumns).seconds(1);
    for (const int bits : {1, 2, 3, 4, 6}) {
      const double planes = LargeMatrix(dtype, kRows, kColumns, bits).seconds(1);
      const double chosen = kernels::wants_bit_planes(dtype, bits) ? planes : wide;
      worst = std::min(worst, std::min(planes, wide) / chosen);
      table += fmt::format("W{}A{} {:.2f}{}, ", weight_bits, bits, wide / planes,
                           kernels::wants_bit_planes(dtype, bits) ? " (planes)" : "");
    }
  }
  return {worst, fmt::format("speed of planes over 8 bits: {}{}", table, kShape)};
}

double decibels(double norm, double error) {
  return 10 * std::log10(norm / error);
}

/// Signal to noise of normal values on the levels s (first + step k), k = 0 .. n - 1, at the best of many s, in dB.
double best_snr(std::span<const float> w, double first, double step, int n) {
  const double outermost = std::max(std::abs(first), std::abs(first + step * (n - 1)));
  double best = 0;
  for (double border = 1; border < 5; border += 0.04) {
    const double scale = border / outermost;
    double error = 0, norm = 0;
    for (const float v : w) {
      const double value = static_cast<double>(v);
      const double k = std::clamp(std::nearbyint((value / scale - first) / step), 0.0, n - 1.0);
      const double e = value - scale * (first + step * k);
      error += e * e;
      norm += value * value;
    }
    best = std::max(best, decibels(norm, error));
  }
  return best;
}

/// The largest difference in dB from the known best of three uniform grids at 2, 3, 4 and 8 bits.
ClaimMeasurement grid_snr_error() {
  constexpr int kBits[] = {2, 3, 4, 8};
  constexpr double kRestricted[] = {7.2, 13.3, 18.9, 40.5}, kFull[] = {8.3, 13.9, 19.3, 40.6},
                   kOdd[] = {9.25, 14.27, 19.38, 40.6};
  const std::vector<float> w = gaussian(size_t{1} << 20, 16);
  double worst = 0;
  std::string table;
  for (size_t i = 0; i < std::size(kBits); ++i) {
    const int bits = kBits[i], half = 1 << (bits - 1);
    const double restricted = best_snr(w, 1 - half, 1, 2 * half - 1), full = best_snr(w, -half, 1, 2 * half),
                 odd = best_snr(w, -bipolar::largest(bits), 2, 2 * half);
    worst =
        std::max({worst, std::abs(restricted - kRestricted[i]), std::abs(full - kFull[i]), std::abs(odd - kOdd[i])});
    table += fmt::format("{} bits {:.2f}, {:.2f}, {:.2f}; ", bits, restricted, full, odd);
  }
  return {worst, fmt::format("{}dB of symmetric, full and odd levels, 1048576 normal values, scales searched", table)};
}

/// The same for levels that k-means finds, against the best that exist (Lloyd and Max).
ClaimMeasurement kmeans_snr_error() {
  constexpr double kLloydMax[] = {9.30, 14.62, 20.22};
  constexpr size_t kWidth = 512;
  const std::vector<float> w = gaussian(size_t{1} << 18, 17), importance(kWidth, 1.0f);
  double worst = 0;
  std::string table;
  for (uint32_t bits = 2; bits <= 4; ++bits) {
    const std::vector<float> centres = kmeans_codebook(w, kWidth, 1, bits, importance, 100, 1);
    std::vector<uint16_t> codes(w.size());
    nearest_codes(w, kWidth, 1, importance, centres, codes.data(), 1);
    double error = 0, norm = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      error += std::pow(static_cast<double>(w[i] - centres[codes[i]]), 2);
      norm += std::pow(static_cast<double>(w[i]), 2);
    }
    worst = std::max(worst, std::abs(decibels(norm, error) - kLloydMax[bits - 2]));
    table += fmt::format("{} bits {:.2f}, ", bits, decibels(norm, error));
  }
  return {worst, fmt::format("{}dB, 262144 normal values", table)};
}

}  // namespace

std::vector<Claim> weight_claims() {
  const char* const df = "arXiv 2504.11651";
  const char* const bm = "arXiv 2411.11745";
  const char* const bp = "arXiv 2409.17870";
  const char* const survey = "arXiv 2103.13630";
  return {
      {"dfloat11", df, "DF11 gives every weight back to the bit", "words that differ", "bit for bit identical", 0, true,
       [] { return lossless_errors(DType::kDf11); }},
      {"dfloat11", df, "DF12, its sibling of fixed rate, gives every weight back to the bit", "words that differ", "-",
       0, true, [] { return lossless_errors(DType::kDf12); }},
      {"dfloat11", df, "DF11 takes about 70 % of BF16", "of BF16", "67.6-68.6 %", 0.675, true,
       [] { return share_of_bf16(DType::kDf11); }},
      {"dfloat11", df, "DF12 takes three quarters of BF16", "of BF16", "-", 0.751, true,
       [] { return share_of_bf16(DType::kDf12); }},
      {"dfloat11", df, "Longer contexts in the same memory", "times the tokens", "5.3-13.17", 5, false, context_ratio},
      {"dfloat11", df, "DF11 decodes 0.8 billion weights a second and core", "weights/s and core", "-", 0.8e9, false,
       [] {
         LargeMatrix matrix(DType::kDf11, kRows, kColumns);
         return ClaimMeasurement{matrix.weights() / matrix.seconds(1) / n_threads(), kShape};
       }},
      {"dfloat11", df, "DF12 multiplies at 0.9 of the speed of BF16 or more", "times BF16", "-", 0.9, false,
       [] { return speed_ratio(DType::kDf12, 0, DType::kBF16); }},
      {"dfloat11", df, "The cost of decoding fades with the batch", "times the time of BF16", "constant per pass", 1.3,
       true, batch_overhead},
      {"bitmod", bm, "Errors of the four sets of levels", "largest relative difference", "-", 0.03, true, bitmod_table},
      {"bitmod", bm, "BitMoD at 3 bits loses less than integers with minimum", "of their squared error",
       "better perplexity", 0.9, true, [] { return bitmod_against_integers(3); }},
      {"bitmod", bm, "BitMoD at 4 bits loses less than integers with minimum", "of their squared error",
       "better perplexity", 1, true, [] { return bitmod_against_integers(4); }},
      {"bitmod", bm, "BitMoD at 4 bits multiplies faster than BF16", "times BF16", "-", 1.8, false,
       [] { return speed_ratio(DType::kBitMod4, 0, DType::kBF16); }},
      {"bitmod", bm, "Tables cost at most half of the speed of plain 4-bit integers", "times Q4_0", "-", 0.5, false,
       [] { return speed_ratio(DType::kBitMod4, 0, DType::kQ4_0); }},
      {"bipolar-int", bp, "Products by bit-planes are exact for every pair of widths", "largest difference", "exact", 0,
       true, plane_errors},
      {"bipolar-int", bp, "W1A1 against the 8-bit kernel", "times Q8_0", "up to 2.4x over CUTLASS", 4, false,
       [] { return speed_ratio(DType::kBipolar1, 1, DType::kQ8_0); }},
      {"bipolar-int", bp, "W2A2 against the 8-bit kernel", "times Q8_0", "up to 2.4x over CUTLASS", 2, false,
       [] { return speed_ratio(DType::kBipolar2, 2, DType::kQ8_0); }},
      {"bipolar-int", bp, "W2A4 against the 8-bit kernel", "times Q8_0", "up to 2.4x over CUTLASS", 1, false,
       [] { return speed_ratio(DType::kBipolar2, 4, DType::kQ8_0); }},
      {"bipolar-int", bp, "Planes or 8 bits: the one that is chosen is hardly slower than the other",
       "of the faster one's speed", "-", 0.9, false, choice_of_planes},
      {"quantization-survey", survey, "Best uniform grids for normal values", "dB from the known ones", "-", 0.1, true,
       grid_snr_error},
      {"quantization-survey", survey, "k-means finds the best levels for normal values", "dB from Lloyd and Max", "-",
       0.1, true, kmeans_snr_error},
  };
}

}  // namespace mneme
