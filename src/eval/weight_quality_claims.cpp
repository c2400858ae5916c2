#include "eval/weight_quality_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/philox.h"
#include "eval/divergence.h"
#include "eval/format_trials.h"
#include "eval/kv_recall.h"
#include "eval/sensitivity.h"
#include "tensor/bitmod.h"
#include "train/data/sources.h"

namespace mneme {
namespace {

constexpr std::array<const char*, 2> kModels = {"models/pocket.gguf", "models/pocket-mini.gguf"};
/// Losses are FormatTrials::loss_of(): what the perplexity is multiplied by.
constexpr const char* kText = "times the perplexity before, by KL divergence on text of its own";

FormatTrials& trials(size_t model) {
  return shared_trials(kModels[model]);
}
FormatTrials& pocket() {
  return trials(0);
}

/// A ratio that a model's measurement found, and a line about it.
struct Found {
  double value;
  std::string how;
};

/// The largest or least value over both models, with what was found of each.
ClaimMeasurement over_models(bool largest, const std::function<Found(FormatTrials&)>& measure) {
  ClaimMeasurement out;
  for (size_t i = 0; i < kModels.size(); ++i) {
    const Found found = measure(trials(i));
    if (i == 0 || (largest ? found.value > out.value : found.value < out.value)) out.value = found.value;
    out.how +=
        fmt::format("{}{}: {}", i == 0 ? "" : "; ", std::filesystem::path(kModels[i]).stem().string(), found.how);
  }
  out.how += fmt::format("; {}", kText);
  return out;
}

/// The model with the matrices that a recipe stores in its base type rounded to integers instead; group 0: rows.
std::string rounded_file(FormatTrials& model, const std::string& recipe, size_t group, const IntegerGrid& grid) {
  const auto change = [&](const TensorInfo& tensor, std::span<float> values) {
    const size_t columns = tensor.shape.from_last(0), n = group == 0 ? columns : std::min(group, columns);
    for (size_t i = 0; i < values.size(); i += columns) round_to_integers(values.subspan(i, columns), n, grid);
  };
  return model.changed_file(fmt::format("{}-int{}{}-{}", recipe, grid.bits, grid.with_minimum ? "min" : "", group),
                            recipe, change);
}
double rounded(FormatTrials& model, const std::string& recipe, size_t group, const IntegerGrid& grid) {
  return model.loss_of(rounded_file(model, recipe, group, grid));
}

/// Loss with one scale a matrix.
double rounded_whole(FormatTrials& model, const std::string& recipe, const IntegerGrid& grid) {
  const auto change = [&](const TensorInfo&, std::span<float> values) {
    round_to_integers(values, values.size(), grid);
  };
  return model.loss_of(model.changed_file(fmt::format("{}-int{}-whole", recipe, grid.bits), recipe, change));
}

/// The same with the levels of a float of 3 or 4 bits, groups of 128.
double rounded_to_floats(FormatTrials& model, const std::string& recipe, int bits) {
  constexpr std::array<float, 4> kThree = {0, 1, 2, 4};
  constexpr std::array<float, 8> kFour = {0, 1, 2, 3, 4, 6, 8, 12};
  const std::span<const float> levels = bits == 3 ? std::span<const float>(kThree) : std::span<const float>(kFour);
  const auto change = [&](const TensorInfo& tensor, std::span<float> values) {
    const size_t columns = tensor.shape.from_last(0);
    for (size_t i = 0; i < values.size(); i += columns) round_to_levels(values.subspan(i, columns), 128, levels);
  };
  return model.loss_of(model.changed_file(fmt::format("{}-fp{}", recipe, bits), recipe, change));
}

ClaimMeasurement bitmod_order(int bits) {
  return over_models(true, [&](FormatTrials& model) {
    const std::string recipe = fmt::format("BITMOD{}", bits);
    const double own = model.loss_of(model.file(recipe));
    const double integers = rounded(model, recipe, 128, {bits, true}), floats = rounded_to_floats(model, recipe, bits);
    return Found{
        own / std::min(integers, floats),
        fmt::format("{:.4f} against {:.4f} of integers with minimum and {:.4f} of floats", own, integers, floats)};
  });
}

ClaimMeasurement against_original(const std::string& recipe, int activation_bits = 8) {
  return over_models(true, [&](FormatTrials& model) {
    QuantizeOptions how;
    how.activation_bits = activation_bits;
    const double found = model.loss_of(model.file(recipe, how, fmt::format("{}-a{}", recipe, activation_bits)));
    return Found{found, fmt::format("{:.4f}", found)};
  });
}

/// The largest loss of some recipes with a way of quantising, over that of rounding to nearest.
ClaimMeasurement against_rounding(const std::vector<std::string>& recipes, const std::string& way,
                                  bool QuantizeOptions::*option) {
  return over_models(true, [&](FormatTrials& model) {
    QuantizeOptions how;
    how.calibration = &model.calibration();
    how.*option = true;
    Found worst{0, ""};
    for (const std::string& recipe : recipes) {
      const double plain = model.loss_of(model.file(recipe));
      const double with = model.loss_of(model.file(recipe, how, fmt::format("{}-{}", recipe, way)));
      worst.value = std::max(worst.value, with / plain);
      worst.how += fmt::format("{}{} {:.4f} with {}, {:.4f} rounded to nearest", worst.how.empty() ? "" : ", ", recipe,
                               with, way, plain);
    }
    return worst;
  });
}

/// Shares of the four special levels among groups of normal weights, in the order of bitmod::kSpecials.
std::array<double, 4> selector_shares(int bits) {
  constexpr size_t kGroups = 4000;
  PhiloxStream random(14);
  std::array<double, 4> shares{};
  std::vector<float> group(bitmod::kGroup);
  for (size_t g = 0; g < kGroups; ++g) {
    for (float& w : group) w = random.next_normal();
    shares[static_cast<size_t>(bitmod::fit_group(bits, group.data(), nullptr).special)] += 1.0 / kGroups;
  }
  return shares;
}

ClaimMeasurement selectors() {
  const std::array<double, 4> three = selector_shares(3), four = selector_shares(4);
  const double asymmetric = three[2] + three[3], resolution = four[0] + four[1];
  const double least =
      std::min(*std::min_element(three.begin(), three.end()), *std::min_element(four.begin(), four.end()));
  if (least <= 0)
    fail(ErrorCode::kUnsupported, "[eval claims] expected all four kinds of groups, found one without any");
  return {std::min(asymmetric, resolution),
          fmt::format(
              "extra asymmetry in {:.0f} % of the groups at 3 bits, extra resolution in {:.0f} % at 4; the rarest of "
              "the four kinds has {:.1f} %; 4000 groups of 128 normal weights",
              100 * asymmetric, 100 * resolution, 100 * least)};
}

/// Share of facts that a file of the pocket model recalls, told 400 tokens before.
double recall_of(const std::string& path) {
  static const train::DataSources sources = [] {
    train::SourceOptions books;
    books.books = "shared:data/books";
    return train::open_sources(books, {});
  }();
  Ledger ledger;
  const auto engine = pocket().load(path, ledger);
  KvRecallOptions options;
  options.probes = 1000;
  options.distance = 400;
  return measure_kv_recall(*engine, KvPolicy::parse("f16"), *sources.texts, options, [](uint64_t, uint64_t) {})
      .recalled;
}

/// The pocket model in a recipe, calibrated and with errors fed on, as its quantisation is recommended.
std::string fed(const std::string& recipe) {
  QuantizeOptions how;
  how.calibration = &pocket().calibration();
  how.gptq = true;
  return pocket().file(recipe, how, recipe + "-gptq");
}

ClaimMeasurement recall_at_four() {
  const double before = recall_of(kModels[0]), after = recall_of(fed("BITMOD4")),
               plain = recall_of(pocket().file("BITMOD4"));
  return {100 * (before - after),
          fmt::format("{:.2f} % of 1000 facts in BITMOD4 with GPTQ ({:.2f} % rounded to nearest), {:.2f} % before; {}",
                      100 * after, 100 * plain, 100 * before, kModels[0])};
}

ClaimMeasurement recall_at_three() {
  const double own = recall_of(fed("BITMOD3")), integers = recall_of(fed("BIPOLAR3"));
  return {100 * (own - integers),
          fmt::format("{:.2f} % of 1000 facts in BITMOD3, {:.2f} % in BIPOLAR3, both 3.125 bits and "
                      "with GPTQ; {}",
                      100 * own, 100 * integers, kModels[0])};
}

/// The least ratio of neighbours in a list of formats, each of which should lose more than the one before. Scales are
/// chosen with a calibration.
Found least_step(FormatTrials& model, const std::vector<std::string>& recipes) {
  Found out{0, ""};
  double before = 0;
  for (const std::string& recipe : recipes) {
    const double found = model.loss_of(model.calibrated_file(recipe));
    if (before > 0) out.value = out.value == 0 ? found / before : std::min(out.value, found / before);
    out.how += fmt::format("{}{} {:.4f}", out.how.empty() ? "" : ", ", recipe, found);
    before = found;
  }
  return out;
}

ClaimMeasurement granularity() {
  return over_models(false, [](FormatTrials& model) {
    Found out{1e9, ""};
    for (const int bits : {4, 3}) {
      const IntegerGrid grid{bits, false};
      const std::array<double, 4> found = {rounded_whole(model, "BITMOD4", grid), rounded(model, "BITMOD4", 0, grid),
                                           rounded(model, "BITMOD4", 128, grid), rounded(model, "BITMOD4", 32, grid)};
      for (size_t i = 1; i < found.size(); ++i) out.value = std::min(out.value, found[i - 1] / found[i]);
      out.how += fmt::format("{}{} bits: matrix {:.4f}, row {:.4f}, 128 {:.4f}, 32 {:.4f}", out.how.empty() ? "" : ", ",
                             bits, found[0], found[1], found[2], found[3]);
    }
    return out;
  });
}

ClaimMeasurement dynamic_activations() {
  return over_models(true, [](FormatTrials& model) {
    QuantizeOptions fixed;
    fixed.calibration = &model.calibration();
    QuantizeOptions dynamic = fixed;
    fixed.static_activations = true;
    const double a = model.loss_of(model.file("Q8_0", dynamic, "Q8_0-dynamic"));
    const double b = model.loss_of(model.file("Q8_0", fixed, "Q8_0-static"));
    return Found{a / b, fmt::format("{:.4f}, {:.4f} with one scale a matrix, Q8_0", a, b)};
  });
}

/// A choice of types in as many bytes as one type takes.
ClaimMeasurement mixed_precision(const std::string& uniform) {
  return over_models(true, [&](FormatTrials& model) {
    const std::string plain = model.calibrated_file(uniform);
    QuantizeOptions mixed = model.mixed_options(std::filesystem::file_size(plain));
    Ledger ledger;
    const auto engine = model.load(model.model(), ledger);
    const MeasuredLosses measured =
        measure_sensitivity(*engine, model.read_text(), DType::kBitMod3, {}, [](size_t, size_t) {});
    mixed.measured = &measured;
    const double a = model.loss_of(model.file(uniform, mixed, uniform + "-mixed")), b = model.loss_of(plain);
    mixed.measured = nullptr;
    const double c = model.loss_of(model.file(uniform, mixed, uniform + "-mixed-by-error"));
    return Found{a / b, fmt::format("{:.4f} mixed ({:.4f} without measured sensitivities), {:.4f} in {}, {} KiB", a, c,
                                    b, uniform, mixed.size / 1024)};
  });
}

/// Bytes of all matrices as they lie in memory, over those of another recipe; every matrix in the base type.
ClaimMeasurement memory_ratio(const std::string& recipe) {
  const auto bytes = [&](const std::string& name) {
    QuantizeOptions how;
    how.pure = true;
    Ledger ledger;
    const auto engine = pocket().load(pocket().file(name, how, name + "-pure"), ledger);
    uint64_t matrices = 0;
    for (const auto& matrix : engine->model().weights.matrices) matrices += matrix->product_bytes(true);
    return static_cast<double>(matrices);
  };
  const double a = bytes("F32"), b = bytes(recipe);
  return {a / b, fmt::format("{:.2f} MiB of matrices in F32, {:.2f} in {}; {}", a / (1 << 20), b / (1 << 20), recipe,
                             kModels[0])};
}

/// Lossless forms whose logits are not those of BF16 to the bit.
ClaimMeasurement differing_forms() {
  FormatTrials& model = pocket();
  Ledger ledger;
  const auto plain = model.load(model.file("BF16"), ledger);
  double differing = 0;
  uint64_t n_scored = 0;
  for (const char* const recipe : {"DF11", "DF12"}) {
    Ledger own;
    const auto other = model.load(model.file(recipe, {}, recipe, model.file("BF16")), own);
    const Divergence found =
        divergence(*plain, *other, model.scored_text(), {FormatTrials::kWindow, 0}, [](uint64_t, uint64_t) {});
    differing += found.identical ? 0 : 1;
    n_scored = found.n_scored;
  }
  return {differing, fmt::format("of DF11 and DF12, logits of {} tokens; {}", n_scored, kModels[0])};
}

}  // namespace

std::vector<Claim> weight_quality_claims() {
  const char* const df = "arXiv 2504.11651";
  const char* const bm = "arXiv 2411.11745";
  const char* const bp = "arXiv 2409.17870";
  const char* const survey = "arXiv 2103.13630";
  const char* const int21 = "arXiv 2306.08162";
  const char* const of_others = "of the better one's loss";
  const char* const before = "times the perplexity";
  return {
      {"dfloat11", df, "A model answers to the bit as in BF16", "forms that differ", "bit for bit identical", 0, true,
       differing_forms},
      {"bitmod", bm, "BitMoD at 4 bits is no worse than integers with minimum and floats", of_others,
       "better at 4 bits", 1, true, [] { return bitmod_order(4); }},
      {"bitmod", bm, "BitMoD at 3 bits is no worse than integers with minimum and floats", of_others,
       "better at 3 bits", 1, true, [] { return bitmod_order(3); }},
      {"bitmod", bm, "BitMoD at 4 bits is near the original", before, "0.5 % accuracy lost", 1.03, true,
       [] { return against_original("BITMOD4"); }},
      {"bitmod", bm, "Scaling channels does not make it worse", "of the loss without", "better with AWQ", 1, true,
       [] {
         return against_rounding({"BITMOD4", "BITMOD3"}, "AWQ", &QuantizeOptions::awq);
       }},
      {"bitmod", bm, "Three bits mostly want asymmetry, four mostly resolution", "share of the groups", "-", 0.5, false,
       selectors},
      {"bitmod", bm, "BitMoD at 4 bits recalls facts as the original", "points lost", "0.5 % accuracy lost", 0.5, true,
       recall_at_four},
      {"bitmod", bm, "BitMoD at 3 bits recalls more facts than integers of 3 bits", "points", "-", 0, false,
       recall_at_three},
      {"bipolar-int", bp, "Fewer bits never help", "least ratio of losses", "-", 1, false,
       [] {
         return over_models(false, [](FormatTrials& model) {
           return least_step(model, {"BIPOLAR8", "BIPOLAR6", "BIPOLAR4", "BIPOLAR3", "BIPOLAR2"});
         });
       }},
      {"bipolar-int", bp, "W8A8 is near the original", before, "-", 1.01, true,
       [] { return against_original("BIPOLAR8"); }},
      {"bipolar-int", bp, "Any pair of widths runs: W5A7", before, "arbitrary precision", 1.1, true,
       [] { return against_original("BIPOLAR5", 7); }},
      {"quantization-survey", survey, "Smaller groups lose less: matrix, row, 128, 32", "least ratio of losses", "-", 1,
       false, granularity},
      {"quantization-survey", survey, "Scales of activations for each token lose no more than fixed ones",
       "of the loss with those", "-", 1, true, dynamic_activations},
      {"quantization-survey", survey, "Mixed precision beats four bits everywhere", "of their loss", "-", 1, true,
       [] { return mixed_precision("BITMOD4"); }},
      {"quantization-survey", survey, "Mixed precision beats three bits everywhere", "of their loss", "-", 1, true,
       [] { return mixed_precision("BITMOD3"); }},
      {"quantization-survey", survey, "8, 4 bits, ternary, binary: each loses more", "least ratio of losses", "-", 1,
       false,
       [] {
         // The other model's columns are no multiple of 256, as ternary types want.
         const Found found = least_step(pocket(), {"Q8_0", "Q4_0", "TQ2_0", "BIPOLAR1"});
         return ClaimMeasurement{found.value, fmt::format("{}; {}, {}", found.how, kModels[0], kText)};
       }},
      {"quantization-survey", survey, "Memory of weights in 8 bits", "times less than F32", "4", 3.5, false,
       [] { return memory_ratio("Q8_0"); }},
      {"quantization-survey", survey, "Memory of weights in 4 bits, groups of 32", "times less than F32", "8", 7, false,
       [] { return memory_ratio("Q4_0"); }},
      {"int21", int21, "GPTQ loses no more than rounding to nearest at 4, 3 and 2 bits", "of its perplexity", "-", 1,
       true,
       [] {
         return against_rounding({"BIPOLAR4", "BIPOLAR3", "BIPOLAR2"}, "GPTQ", &QuantizeOptions::gptq);
       }},
  };
}

}  // namespace mneme
