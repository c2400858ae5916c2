#include "eval/integer_claims.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/philox.h"
#include "engine/calibration.h"
#include "eval/divergence.h"
#include "eval/integer_model.h"
#include "eval/own_text.h"
#include "kernels/integer_ops.h"
#include "train/data/sources.h"
#include "weights/quantize.h"
#include "weights/stochastic_rounding.h"

namespace mneme {
namespace {

constexpr std::array<const char*, 2> kModels = {"models/pocket.gguf", "models/pocket-mini.gguf"};
constexpr uint32_t kWindow = 512;
constexpr size_t kCalibrationWindows = 8, kScoredWindows = 4;
/// Of the text that is scored; what calibrates has another.
constexpr uint64_t kScoredSeed = 1000;

std::string short_name(const char* model) {
  return std::filesystem::path(model).stem().string();
}

std::unique_ptr<Engine> load(const std::string& path, Ledger& ledger) {
  PlanRequest request;
  request.context = kWindow;
  return Engine::load(path, request, ledger);
}

OwnTextOptions from_vocabulary() {
  OwnTextOptions how;
  how.first = OwnTextOptions::First::kVocabulary;
  how.piece = kWindow;
  return how;
}

/// A model of integers, with ranges from one text of its own and another to be measured on.
struct IntegerTrial {
  Ledger ledger;
  std::unique_ptr<Engine> engine;
  std::vector<TokenId> scored;
  integer::Model model;

  explicit IntegerTrial(const char* path) : engine(load(path, ledger)) {
    scored = own_text(*engine, kScoredWindows * kWindow, {OwnTextOptions::First::kBeginning, kScoredSeed, 0});
    const std::vector<TokenId> text = own_text(*engine, kCalibrationWindows * kWindow, from_vocabulary());
    model = integer::convert(*engine, text, {kWindow, kCalibrationWindows}, [](uint64_t, uint64_t) {});
  }
};

IntegerTrial& trial(size_t i) {
  static std::array<std::unique_ptr<IntegerTrial>, kModels.size()> all;
  if (!all[i]) all[i] = std::make_unique<IntegerTrial>(kModels[i]);
  return *all[i];
}

/// Largest differences of layers in integers from their simulated form, in steps of 8 bits.
struct LayerDifferences {
  double inside = 0;  ///< At the points of the layers.
  double behind = 0;  ///< In the residual stream, in steps of its range behind the layer.
  size_t worst_layer = 0;
  double other_layers = 0;  ///< The largest behind any other layer.
  double share = 0;         ///< Of the integers inside that differ at all.
};

/// Every layer in both forms, from the same residual stream, which the integer pass made.
LayerDifferences compare_layers(IntegerTrial& own) {
  LayerDifferences out;
  size_t n = 0, differing = 0;
  std::vector<double> behind(own.model.layers.size());
  for (size_t w = 0; w < kScoredWindows; ++w) {
    const std::span<const TokenId> window = std::span(own.scored).subspan(w * kWindow, kWindow);
    const auto residuals = integer::integer_residuals(own.model, window);
    for (size_t i = 0; i < own.model.layers.size(); ++i) {
      const integer::PointCodes a = integer::integer_layer(own.model, i, residuals[i]),
                                b = integer::simulated_layer(own.model, i, residuals[i]);
      for (size_t p = 0; p < integer::kPoints; ++p) {
        for (size_t j = 0; j < a.codes[p].size(); ++j) {
          const int32_t difference = std::abs(a.codes[p][j] - b.codes[p][j]);
          out.inside = std::max(out.inside, static_cast<double>(difference));
          differing += difference > 0 ? 1 : 0;
        }
        n += a.codes[p].size();
      }
      const double step = std::ldexp(static_cast<double>(integer::scale_of(own.model.ranges.layers[i].output)),
                                     own.model.residual_bits);
      for (size_t j = 0; j < a.output.size(); ++j) {
        const double difference = static_cast<double>(a.output[j]) - static_cast<double>(b.output[j]);
        behind[i] = std::max(behind[i], std::abs(difference) / step);
      }
    }
  }
  const auto worst = std::max_element(behind.begin(), behind.end());
  out.behind = *worst;
  out.worst_layer = static_cast<size_t>(worst - behind.begin());
  *worst = 0;
  out.other_layers = *std::max_element(behind.begin(), behind.end());
  out.share = static_cast<double>(differing) / static_cast<double>(n);
  return out;
}

const LayerDifferences& layer_differences(size_t model) {
  static std::array<std::optional<LayerDifferences>, kModels.size()> all;
  if (!all[model]) all[model] = compare_layers(trial(model));
  return *all[model];
}

ClaimMeasurement inside_layers() {
  ClaimMeasurement out;
  for (size_t m = 0; m < kModels.size(); ++m) {
    const LayerDifferences& found = layer_differences(m);
    out.value = std::max(out.value, found.inside);
    out.how += fmt::format("{}: {:.0f}, {:.2f} % of the integers differ at all; ", short_name(kModels[m]), found.inside,
                           100 * found.share);
  }
  out.how += fmt::format("{} windows of {} tokens of their own text", kScoredWindows, kWindow);
  return out;
}

ClaimMeasurement behind_layers() {
  ClaimMeasurement out;
  for (size_t m = 0; m < kModels.size(); ++m) {
    const LayerDifferences& found = layer_differences(m);
    out.value = std::max(out.value, found.behind);
    out.how += fmt::format("{}: {:.2f} behind layer {}, {:.2f} behind all others; ", short_name(kModels[m]),
                           found.behind, found.worst_layer, found.other_layers);
  }
  out.how += "the same windows";
  return out;
}

/// exp of the divergence of the integer pass over that of the simulated one.
ClaimMeasurement integer_loss() {
  ClaimMeasurement out;
  for (size_t m = 0; m < kModels.size(); ++m) {
    IntegerTrial& own = trial(m);
    const auto kl_of = [&](const WindowLogits& logits) {
      return divergence(*own.engine, logits, own.scored, {kWindow, 0}, [](uint64_t, uint64_t) {}).kl;
    };
    const double integers = kl_of([&](std::span<const TokenId> window, size_t first) {
      const std::vector<int32_t> units = integer::integer_logits(own.model, window, first);
      std::vector<float> logits(units.begin(), units.end());
      for (float& x : logits) x /= static_cast<float>(integer::kOne);
      return logits;
    });
    const double simulated = kl_of([&](std::span<const TokenId> window, size_t first) {
      return integer::simulated_logits(own.model, window, first);
    });
    out.value = std::max(out.value, std::exp(integers - simulated));
    out.how += fmt::format("{}: {:.4f} times the perplexity before in integers, {:.4f} simulated; ",
                           short_name(kModels[m]), std::exp(integers), std::exp(simulated));
  }
  out.how += "by KL divergence on text of their own";
  return out;
}

/// Largest error of the integer exponential on the numbers that it is for.
ClaimMeasurement exponential_error() {
  double most = 0;
  for (int32_t x = -16 << integer::kFraction; x <= 0; ++x) {
    const double unit = 1.0 / static_cast<double>(integer::kOne);
    const double exact = std::exp(static_cast<double>(x) * unit);
    most = std::max(most, std::abs(static_cast<double>(integer::exp_nonpositive(x)) * unit - exact));
  }
  return {most, "all numbers of Q16 from -16 to 0"};
}

/// How much of what calibration on real text gains is gained by text that the model makes up: 3 bits with GPTQ.
ClaimMeasurement zero_shot() {
  const char* const model = kModels.front();
  const char* const kRead = "h-g-wells-the-time-machine.txt";
  const char* const kHeldOut = "agatha-christie-the-secret-adversary.txt";
  const std::string books = train::recipe_path("shared:data/books/");
  Ledger ledger;
  const auto engine = load(model, ledger);
  const auto book = [&](const char* name, size_t n_tokens) {
    std::vector<TokenId> tokens = engine->tokenizer().encode(read_text_file(books + name), {false, false});
    if (tokens.size() < n_tokens) {
      fail(ErrorCode::kInvalidArgument, "[eval claims] {}: expected {} tokens, found {}", name, n_tokens,
           tokens.size());
    }
    tokens.resize(n_tokens);
    return tokens;
  };
  constexpr size_t kReadTokens = 16 * kWindow;
  const std::vector<TokenId> held_out = book(kHeldOut, 8 * kWindow);
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("mneme-zero-shot-{}", ::getpid());
  std::filesystem::create_directories(folder);
  const auto loss = [&](const std::vector<TokenId>* text) {
    Calibration calibration;
    QuantizeOptions how;
    how.recipe = find_quant_recipe("BIPOLAR3");
    how.lossy = true;
    if (text != nullptr) {
      CalibrationOptions options;
      options.window = kWindow;
      options.wants_gram = [](const std::string& name) { return name.starts_with("blk."); };
      calibration = calibrate(*engine, *text, options, [](uint64_t, uint64_t) {});
      how.calibration = &calibration;
      how.gptq = true;
    }
    const std::string path = (folder / "small.gguf").string();
    Ledger own;
    const auto source = open_source(model, own);
    quantize_model(*source, path, how, own);
    Ledger small;
    const auto other = load(path, small);
    return divergence(*engine, *other, held_out, {kWindow, 0}, [](uint64_t, uint64_t) {}).kl;
  };
  const std::vector<TokenId> real = book(kRead, kReadTokens),
                             made_up = own_text(*engine, kReadTokens, from_vocabulary());
  const double without = loss(nullptr), with_real = loss(&real), with_own = loss(&made_up);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  if (!(without > with_real)) {
    fail(ErrorCode::kUnsupported,
         "[eval claims] expected real text to gain something, found KL {} without and {} with it", without, with_real);
  }
  return {(without - with_own) / (without - with_real),
          fmt::format("KL {:.4f} rounded to nearest, {:.4f} with GPTQ on {} tokens of {}, {:.4f} on as many that the "
                      "model made up; BIPOLAR3, {} tokens of {} scored; {}",
                      without, with_real, kReadTokens, kRead, with_own, held_out.size() / 2, kHeldOut, model)};
}

/// Mean error of 10^6 stochastic roundings of normal values, in units of four of its standard deviations.
ClaimMeasurement rounding_bias() {
  constexpr size_t kDraws = 1 << 20;
  ClaimMeasurement out;
  for (const DType to : {DType::kQ4_0, DType::kBipolar3, DType::kQ8_0}) {
    PhiloxStream random(5);
    std::vector<float> row(kDraws);
    for (float& x : row) x = random.next_normal();
    std::vector<float> rounded = row;
    round_stochastically(rounded, to, 1, rounding_stream("draws"), 0);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      const double error = static_cast<double>(rounded[i]) - static_cast<double>(row[i]);
      sum += error;
      squares += error * error;
    }
    const double n = static_cast<double>(kDraws), bound = 4 * std::sqrt(squares / n) / std::sqrt(n);
    out.value = std::max(out.value, std::abs(sum / n) / bound);
    out.how += fmt::format("{} {:.1e} of {:.1e}, ", dtype_info(to).name, sum / n, bound);
  }
  out.how += "normal values";
  return out;
}

/// Squared error of values on a grid of 2^bits levels (less one without a zero point) from their least to their
/// largest.
double grid_error(std::span<const float> x, int bits, bool asymmetric) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double top = asymmetric ? (1 << bits) - 1 : (1 << (bits - 1)) - 1;
  const double least = std::min(0.0, static_cast<double>(*low)), most = std::max(0.0, static_cast<double>(*high));
  const double range = asymmetric ? most - least : std::max(-least, most);
  const double scale = range > 0 ? range / top : 1;
  const double zero = asymmetric ? std::nearbyint(-least / scale) : 0, first = asymmetric ? 0 : -top;
  double error = 0;
  for (const float value : x) {
    const double code = std::clamp(std::nearbyint(static_cast<double>(value) / scale) + zero, first, top);
    error += std::pow(scale * (code - zero) - static_cast<double>(value), 2);
  }
  return error;
}

/// Inputs of the down projections, which a gate made, with a zero point over without.
ClaimMeasurement gated_grids() {
  ClaimMeasurement out;
  for (size_t m = 0; m < kModels.size(); ++m) {
    IntegerTrial& own = trial(m);
    std::array<double, 2> with{}, without{};  // 8 and 4 bits, a grid a token
    std::array<double, 2> with_whole{}, without_whole{};
    own.engine->workspace().input().observe(
        [&](std::span<const kernels::MatmulTask> tasks, const kernels::MatmulInput& input) {
          for (const auto& matrix : own.engine->model().weights.matrices) {
            if (matrix->active.data != tasks.front().w.data || !matrix->name.ends_with("ffn_down.weight")) continue;
            const std::span<const float> all(input.x(), input.n_tokens() * input.columns());
            for (size_t b = 0; b < 2; ++b) {
              const int bits = b == 0 ? 8 : 4;
              for (size_t t = 0; t < input.n_tokens(); ++t) {
                const std::span<const float> row = all.subspan(t * input.columns(), input.columns());
                with[b] += grid_error(row, bits, true);
                without[b] += grid_error(row, bits, false);
              }
              with_whole[b] += grid_error(all, bits, true);
              without_whole[b] += grid_error(all, bits, false);
            }
          }
        });
    for (size_t w = 0; w < kScoredWindows; ++w) {
      const auto state = own.engine->make_state();
      own.engine->run(*state, std::span(own.scored).subspan(w * kWindow, kWindow), [](size_t, size_t, const float*) {});
    }
    own.engine->workspace().input().observe({});
    if (!(without[0] > 0))
      fail(ErrorCode::kUnsupported, "[eval claims] expected inputs of down projections, found none");
    for (size_t b = 0; b < 2; ++b) {
      out.value = std::max({out.value, with[b] / without[b], with_whole[b] / without_whole[b]});
    }
    out.how +=
        fmt::format("{}: {:.3f} at 8 bits and {:.3f} at 4 with a grid a token, {:.3f} and {:.3f} with one a pass; ",
                    short_name(kModels[m]), with[0] / without[0], with[1] / without[1],
                    with_whole[0] / without_whole[0], with_whole[1] / without_whole[1]);
  }
  out.how += "inputs of all down projections on their own text";
  return out;
}

}  // namespace

std::vector<Claim> integer_claims() {
  const std::string system = "quantization-survey", survey = "arXiv 2103.13630", ibert = "arXiv 2101.01321";
  return {
      {system, ibert, "An exponential of integers stays near the exact one", "largest error", "1.9e-3", 2.2e-3, true,
       exponential_error},
      {system, survey, "In a layer of integers alone, 8-bit values are the simulated ones up to two steps", "steps",
       "-", 2, true, inside_layers},
      {system, survey, "So is what it leaves in the residual stream, in steps of 8 bits of its range", "steps", "-", 2,
       true, behind_layers},
      {system, survey, "Integers alone lose no more than simulated quantisation", "times its perplexity", "-", 1.01,
       true, integer_loss},
      {system, survey, "Calibration on text of the model's own closes most of the gap", "of what real text closes", "-",
       0.75, false, zero_shot},
      {system, survey, "Stochastic rounding has no bias", "of 4 standard deviations of the mean", "-", 1, true,
       rounding_bias},
      {system, survey, "A zero point loses no more than none for activations behind a gate", "of the squared error",
       "-", 1, true, gated_grids},
  };
}

}  // namespace mneme
