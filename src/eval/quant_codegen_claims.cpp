#include "eval/quant_codegen_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "eval/quant_study.h"
#include "kernels/aqlm_product.h"
#include "weights/aqlm_quantizer.h"
#include "weights/codebook_kmeans.h"
#include "weights/gptq.h"

namespace mneme {
namespace {

constexpr size_t kSide = 256;

std::vector<float> normal(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = 0.02f * random.next_normal();
  return out;
}

/// Gram matrix of inputs whose channels are correlated (0.8 from one to the next) and of unequal size.
const std::vector<float>& correlated_gram() {
  static const std::vector<float> kGram = [] {
    PhiloxStream random(21);
    std::vector<float> sums(kSide * kSide), x(kSide);
    for (size_t t = 0; t < 4 * kSide; ++t) {
      float common = 0;
      for (size_t j = 0; j < kSide; ++j) {
        common = 0.8f * common + random.next_normal();
        x[j] = common * (j % 16 == 0 ? 4.0f : 1.0f);
      }
      for (size_t i = 0; i < kSide; ++i) {
        for (size_t j = 0; j < kSide; ++j) sums[i * kSide + j] += x[i] * x[j];
      }
    }
    return sums;
  }();
  return kGram;
}

const std::vector<float>& weights() {
  static const std::vector<float> kWeights = normal(kSide * kSide, 22);
  return kWeights;
}

TensorView view_of(const aqlm::Layout& layout, std::span<const std::byte> stream) {
  return {DType::kAqlm, Shape{layout.rows, layout.columns}, stream.data(), stream.size()};
}

std::vector<float> decoded(const aqlm::Layout& layout, std::span<const std::byte> stream) {
  std::vector<float> out(layout.rows * layout.columns);
  weight_format(DType::kAqlm)
      .decode_tile(view_of(layout, stream), {0, layout.rows, 0, layout.columns}, out.data(), layout.columns);
  return out;
}

aqlm::Quantized quantized(const aqlm::Layout& layout) {
  Ledger ledger;
  return aqlm::quantize(weights(), layout, correlated_gram(), {}, ledger);
}

/// Squared error of the outputs over the squared outputs.
double relative_loss(std::span<const float> stored) {
  static const double kNorm =
      output_error(weights(), std::vector<float>(weights().size(), 0.0f), correlated_gram(), kSide);
  return output_error(weights(), stored, correlated_gram(), kSide) / kNorm;
}

ClaimMeasurement rise_of_loss() {
  double worst = -1;
  size_t steps = 0;
  for (const aqlm::Scheme& scheme : {aqlm::Scheme{2, 8, 8}, {1, 8, 4}, {1, 3, 1}}) {
    const aqlm::Quantized q = quantized(aqlm::layout_for(kSide, kSide, scheme));
    for (size_t i = 1; i < q.losses.size(); ++i, ++steps) worst = std::max(worst, q.losses[i] / q.losses[i - 1] - 1);
  }
  return {worst, fmt::format("{} steps on 256 x 256 normal weights, AQLM2x8g8, AQLM1x8g4 and KMEANS3", steps)};
}

/// The same scheme with codes from k-means on the weights alone.
ClaimMeasurement against_plain_vectors() {
  const aqlm::Scheme scheme{1, 8, 4};
  const aqlm::Layout layout = aqlm::layout_for(kSide, kSide, scheme);
  std::vector<float> points = weights(), scales(kSide), plain(points.size());
  for (size_t r = 0; r < kSide; ++r) {
    double sum = 0;
    for (size_t c = 0; c < kSide; ++c) sum += std::pow(static_cast<double>(points[r * kSide + c]), 2);
    scales[r] = static_cast<float>(std::sqrt(sum / kSide));
    for (size_t c = 0; c < kSide; ++c) points[r * kSide + c] /= scales[r];
  }
  const std::vector<float> ones(kSide, 1.0f);
  const std::vector<float> centres = kmeans_codebook(points, kSide, 4, 8, ones, 100, 0);
  std::vector<uint16_t> codes(points.size() / 4);
  nearest_codes(points, kSide, 4, ones, centres, codes.data(), 1);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = scales[i / kSide] * centres[size_t{codes[i / 4]} * 4 + i % 4];
  const double a = relative_loss(decoded(layout, quantized(layout).stream)), b = relative_loss(plain);
  return {a / b, fmt::format("output error {:.5f} against {:.5f}; AQLM1x8g4, {:.3f} bits, 256 x 256, correlated inputs",
                             a, b, layout.bits_per_weight())};
}

/// Integers of `bits` with a scale and a minimum in half precision for 64 columns, rounded to nearest.
std::vector<float> rounded_to_nearest(int bits) {
  std::vector<float> out = weights();
  const auto top = static_cast<float>((1 << bits) - 1);
  for (size_t g = 0; g < out.size(); g += 64) {
    const auto first = out.begin() + static_cast<long>(g);
    const auto [low, high] = std::minmax_element(first, first + 64);
    const float zero = f16_to_f32(f32_to_f16(*low)), scale = f16_to_f32(f32_to_f16((*high - *low) / top));
    for (size_t i = g; i < g + 64; ++i) {
      out[i] = zero + scale * std::clamp(std::nearbyint((out[i] - zero) / scale), 0.0f, top);
    }
  }
  return out;
}

ClaimMeasurement against_rounding(int bits, const aqlm::Scheme& scheme) {
  const aqlm::Layout layout = aqlm::layout_for(kSide, kSide, scheme);
  const double a = relative_loss(decoded(layout, quantized(layout).stream)),
               b = relative_loss(rounded_to_nearest(bits));
  return {a / b, fmt::format("output error {:.5f} at {:.3f} bits (AQLM{}x{}g{}) against {:.5f} at {:.3f}; 256 x 256, "
                             "correlated inputs",
                             a, layout.bits_per_weight(), scheme.codebooks, scheme.bits, scheme.group, b, bits + 0.5)};
}

/// Matrices of random codes: any bits are codes.
struct RandomCodes {
  RandomCodes(uint64_t rows, uint64_t columns, const aqlm::Scheme& scheme)
      : layout(aqlm::layout_for(rows, columns, scheme)), memory(ledger, Tag::kWeights, layout.bytes(), "codes") {
    PhiloxStream random(23);
    std::vector<float> values(scheme.codebooks * layout.book_values());
    for (float& v : values) v = random.next_normal();
    const std::vector<float> scales(rows, 0.02f);
    aqlm::write_head(layout, aqlm::rounded(layout, values), scales, memory.data());
    for (size_t at = layout.codes(); at + 4 <= layout.bytes(); at += 4) {
      const uint32_t word = random.next_u32();
      std::memcpy(memory.data() + at, &word, sizeof word);
    }
  }
  kernels::Matrix matrix() const { return kernels::Matrix::from(view_of(layout, {memory.data(), layout.bytes()})); }

  aqlm::Layout layout;
  Ledger ledger;
  Buffer memory;
};

/// Largest |tiles - dense| over the sum of magnitudes, and relative squared difference of tables and dense.
std::pair<double, double> product_errors() {
  RandomCodes m(kSide, kSide, {2, 8, 8});
  const std::vector<float> full = decoded(m.layout, {m.memory.data(), m.layout.bytes()});
  constexpr size_t kTokens = 8;
  const std::vector<float> x = normal(kTokens * kSide, 24);
  std::vector<float> tiles(kTokens * kSide), tables(kSide);
  kernels::MatmulInput input(m.ledger);
  input.set(x.data(), kTokens, kSide);
  kernels::matmul(m.matrix(), input, nullptr, tiles.data(), kSide);
  double worst = 0, error = 0, norm = 0;
  for (size_t t = 0; t < kTokens; ++t) {
    input.set(x.data() + t * kSide, 1, kSide);
    kernels::matmul(m.matrix(), input, nullptr, tables.data(), kSide);
    for (size_t r = 0; r < kSide; ++r) {
      double sum = 0, size = 0;
      for (size_t c = 0; c < kSide; ++c) {
        const double part = static_cast<double>(full[r * kSide + c]) * static_cast<double>(x[t * kSide + c]);
        sum += part;
        size += std::abs(part);
      }
      worst = std::max(worst, std::abs(sum - static_cast<double>(tiles[t * kSide + r])) / size);
      error += std::pow(sum - static_cast<double>(tables[r]), 2);
      norm += sum * sum;
    }
  }
  return {worst, std::sqrt(error / norm)};
}

/// Weights a second for one token, the median of several products.
double rate(const kernels::Matrix& w, Ledger& ledger) {
  const std::vector<float> x = normal(w.columns, 25);
  std::vector<float> y(w.rows);
  kernels::MatmulInput input(ledger);
  std::vector<double> times;
  for (int i = 0; i < 8; ++i) {
    const auto start = std::chrono::steady_clock::now();
    input.set(x.data(), 1, w.columns);
    kernels::matmul(w, input, nullptr, y.data(), w.rows);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin() + 1, times.end());  // the first one warms up
  return static_cast<double>(w.rows * w.columns) / times[4];
}

ClaimMeasurement speed(const aqlm::Scheme& scheme) {
  constexpr size_t kRows = 32768, kColumns = 2048;
  double of_codes = 0;
  {
    RandomCodes codes(kRows, kColumns, scheme);
    of_codes = rate(codes.matrix(), codes.ledger);
  }
  Ledger ledger;
  const std::vector<uint16_t> words(kRows * kColumns, f32_to_bf16(0.02f));
  Buffer packed(ledger, Tag::kWeights, kernels::packed_bytes(DType::kBF16, kRows, kColumns), "packed");
  const kernels::Matrix plain{DType::kBF16, kernels::Layout::kPlain, kRows, kColumns,
                              reinterpret_cast<const std::byte*>(words.data())};
  const double of_bf16 = rate(kernels::pack_matrix(plain, packed.data()), ledger);
  return {of_codes / of_bf16,
          fmt::format("{:.1f} against {:.1f} billion weights/s; AQLM{}x{}g{}, 32768 x 2048, one token, "
                      "all threads",
                      of_codes / 1e9, of_bf16 / 1e9, scheme.codebooks, scheme.bits, scheme.group)};
}

ClaimMeasurement statistics_errors() {
  double worst = std::abs(PairedOutcomes{0, 1, 9, 0}.p_value() - 22.0 / 1024);
  worst = std::max(worst, std::abs(PairedOutcomes{0, 2, 8, 0}.p_value() - 112.0 / 1024));
  const std::vector<double> family = {0.01, 0.04, 0.03, 0.005}, known = {0.02, 0.04, 0.04, 0.02};
  const std::vector<double> adjusted = adjust_false_discoveries(family);
  for (size_t i = 0; i < known.size(); ++i) worst = std::max(worst, std::abs(adjusted[i] - known[i]));
  worst = std::max(worst, std::abs(pass_at_k(5, 2, 3) - 0.9));  // 9 of the 10 choices
  return {worst, "McNemar of 1 and 9, 2 and 8; a family of four; pass@3 of 2 in 5"};
}

/// The study of widths and calibrations (eval/quant_study.h) in short, made when first needed: half a minute.
const ModelStudy& coder_study() {
  static const ModelStudy kStudy = [] {
    QuantStudyOptions options;
    options.widths = {"4", "2"};
    options.calibrations = {CalibrationKind::kGeneral, CalibrationKind::kCode};
    options.n_tasks = 100;
    options.completions.per_task = 4;
    options.texts.books = "shared:data/books";
    return study_quantization("models/coder-mini.gguf", options, [](size_t, const std::string&) {});
  }();
  return kStudy;
}

const StudyRow& study_row(std::string_view width, std::string_view calibration) {
  for (const StudyRow& row : coder_study().rows) {
    if (row.width == width && row.calibration == calibration) return row;
  }
  fail(ErrorCode::kNotFound, "[eval claims] expected a row for {} bits after {}, found none", width, calibration);
}

std::string in_words(const StudyRow& row) {
  return fmt::format("pass@1 {:.1f} % of {:.1f} %, p {:.2g} ({})", 100 * row.completions.pass_at_1(),
                     100 * coder_study().original.completions.pass_at_1(), row.adjusted_p, row.calibration);
}

constexpr const char* kStudied = "models/coder-mini.gguf, 100 tasks of 4 completions";

/// The p-value of a drop of pass@1 from the original, 1 where there is none: of two calibrations the one that speaks
/// against the claim, the least p or the largest.
ClaimMeasurement p_of_drop(std::string_view width, bool least) {
  const StudyRow &general = study_row(width, "general"), &code = study_row(width, "code");
  const auto p = [](const StudyRow& row) {
    return row.completions.pass_at_1() < coder_study().original.completions.pass_at_1() ? row.adjusted_p : 1.0;
  };
  return {least ? std::min(p(general), p(code)) : std::max(p(general), p(code)),
          fmt::format("{}; {}; {}", in_words(general), in_words(code), kStudied)};
}

ClaimMeasurement bytes_saved() {
  const StudyRow &general = study_row("4", "general"), &code = study_row("4", "code");
  return {std::min(general.saved, code.saved),
          fmt::format("{}, {:.2f} bits a weight of the layers; {}", code.format, code.bits, kStudied)};
}

/// The p-value of pass@1 after calibration on code against that after general text at 2 bits; 1 where it is not higher.
ClaimMeasurement p_of_calibration() {
  for (const CalibrationPair& pair : coder_study().pairs) {
    if (pair.width != "2") continue;
    const double gain = pair.first == "code" ? pair.difference : -pair.difference;
    return {gain > 0 ? pair.adjusted_p : 1.0,
            fmt::format("code over general text {:+.1f} points of pass@1; {}", 100 * gain, kStudied)};
  }
  fail(ErrorCode::kNotFound, "[eval claims] expected two calibrations at 2 bits, found none");
}

}  // namespace

std::vector<Claim> quant_codegen_claims() {
  const char* const source = "arXiv 2503.07103";
  return {
      {"quant-codegen", source, "Products by tiles are those of the decoded matrix", "largest relative difference", "-",
       1e-5, true,
       [] {
         return ClaimMeasurement{product_errors().first, "256 x 256, AQLM2x8g8, 8 tokens, over the sum of magnitudes"};
       }},
      {"quant-codegen", source, "Products by tables of bytes are near those of the decoded matrix",
       "root mean square difference", "-", 0.02, true,
       [] {
         return ClaimMeasurement{product_errors().second, "256 x 256, AQLM2x8g8, 8 tokens one by one"};
       }},
      {"quant-codegen", source, "No step raises the squared error of the outputs", "largest relative rise", "-", 1e-5,
       true, rise_of_loss},
      {"quant-codegen", source, "Better than k-means on vectors of weights, at the same bytes", "of their output error",
       "-", 0.8, true, against_plain_vectors},
      {"quant-codegen", source, "Better than rounding to nearest with 2 bits, at no more bytes", "of its output error",
       "-", 0.5, true,
       [] {
         return against_rounding(2, {1, 8, 4});
       }},
      {"quant-codegen", source, "Better than rounding to nearest with 3 bits, at no more bytes", "of its output error",
       "-", 0.5, true,
       [] {
         return against_rounding(3, {2, 6, 4});
       }},
      {"quant-codegen", source, "Two codebooks of 8 bits multiply faster than BF16", "times BF16",
       "up to about 4 times f32", 2, false,
       [] {
         return speed({2, 8, 8});
       }},
      {"quant-codegen", source, "Statistics give the worked values", "largest difference", "-", 1e-9, true,
       statistics_errors},
      {"quant-codegen", source, "4 bits lose nothing significant", "least p of a drop", "no significant drop", 0.05,
       false, [] { return p_of_drop("4", true); }},
      {"quant-codegen", source, "4 bits save most of the bytes", "of all tensors in 16 bits", "70 % of memory", 0.65,
       false, bytes_saved},
      {"quant-codegen", source, "2 bits lose significantly", "largest p of a drop", "-", 0.05, true,
       [] { return p_of_drop("2", false); }},
      {"quant-codegen", source, "At 2 bits calibration on code beats general text", "p", "limits the loss", 0.05, true,
       p_of_calibration},
  };
}

}  // namespace mneme
