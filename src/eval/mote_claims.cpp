#include "eval/mote_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/philox.h"
#include "eval/large_matrix.h"
#include "eval/up_cycling.h"
#include "kernels/cpu.h"
#include "kernels/matmul.h"
#include "tensor/exact_conversion.h"
#include "train/ops/ternary.h"

namespace mneme {
namespace {

using train::ExpertOptions;

constexpr const char* kSource = "arXiv 2506.14435";

/// Random codes of -1, 0 and 1, stored with a scale of one in every block.
std::vector<std::byte> random_codes(DType dtype, size_t rows, size_t columns, uint64_t seed,
                                    std::vector<float>& codes) {
  PhiloxStream random(seed);
  codes.resize(rows * columns);
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = i % 256 == 0 ? 1.0f : static_cast<float>(random.next_below(3)) - 1.0f;
  }
  std::vector<std::byte> stored(row_bytes(dtype, columns) * rows);
  dtype_info(dtype).encode(codes.data(), nullptr, stored.data(), codes.size());
  return stored;
}

/// Products that differ from the sums of integers, over both types, packed and plain, for all instruction sets.
ClaimMeasurement wrong_products() {
  constexpr size_t kTokens = 3;
  const kernels::Target usual = kernels::active_target();
  size_t wrong = 0, n = 0;
  std::string targets;
  for (const kernels::Target target : kernels::available_targets()) {
    kernels::set_active_target(target);
    targets += fmt::format("{}{}", targets.empty() ? "" : ", ", kernels::target_name(target));
    for (const DType dtype : {DType::kTQ1_0, DType::kTQ2_0}) {
      for (const auto& [rows, columns] : {std::pair<size_t, size_t>{1, 256}, {17, 512}, {33, 1024}, {5, 4096}}) {
        std::vector<float> codes;
        const auto stored = random_codes(dtype, rows, columns, rows, codes);
        PhiloxStream random(columns);
        std::vector<float> x(kTokens * columns), y(kTokens * rows);
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = i % 32 == 0 ? 127.0f : static_cast<float>(random.next_below(255)) - 127.0f;
        }
        const kernels::Matrix plain = kernels::Matrix::from({dtype, {rows, columns}, stored.data()});
        Ledger ledger;
        Buffer packed(ledger, Tag::kWeights, kernels::packed_bytes(dtype, rows, columns), "codes");
        std::vector<kernels::Matrix> forms = {plain};
        if (packed.size() > 0) forms.push_back(kernels::pack_matrix(plain, packed.data()));
        for (const kernels::Matrix& matrix : forms) {
          kernels::MatmulInput input(ledger);
          input.set(x.data(), kTokens, columns);
          kernels::matmul(matrix, input, nullptr, y.data(), rows);
          for (size_t t = 0; t < kTokens; ++t) {
            for (size_t r = 0; r < rows; ++r) {
              int64_t sum = 0;
              for (size_t c = 0; c < columns; ++c) {
                sum += static_cast<int64_t>(codes[r * columns + c]) * static_cast<int64_t>(x[t * columns + c]);
              }
              wrong += y[t * rows + r] != static_cast<float>(sum) ? 1 : 0;
              ++n;
            }
          }
        }
      }
    }
  }
  kernels::set_active_target(usual);
  return {static_cast<double>(wrong),
          fmt::format("of {} products of random codes, 256 to 4096 columns; {}", n, targets)};
}

ClaimMeasurement wrong_conversions() {
  constexpr size_t kColumns = 1 << 16;
  std::vector<float> codes;
  const auto two = random_codes(DType::kTQ2_0, 1, kColumns, 3, codes);
  std::vector<std::byte> one(row_bytes(DType::kTQ1_0, kColumns)), back(two.size());
  convert_exactly(DType::kTQ2_0, DType::kTQ1_0, two.data(), one.data(), kColumns);
  convert_exactly(DType::kTQ1_0, DType::kTQ2_0, one.data(), back.data(), kColumns);
  size_t wrong = 0;
  for (size_t i = 0; i < two.size(); ++i) wrong += two[i] != back[i] ? 1 : 0;
  return {static_cast<double>(wrong), "bytes that differ after TQ2_0 to TQ1_0 and back, 65536 random codes"};
}

/// Relative squared error and zeros of a Gaussian matrix.
std::pair<double, double> gaussian_rounding() {
  constexpr size_t kRows = 1024, kColumns = 1024;
  PhiloxStream random(3);
  std::vector<float> w(kRows * kColumns), codes(w.size());
  for (float& v : w) v = 0.02f * random.next_normal();
  const float scale = train::ternary_codes(w.data(), kRows, kColumns, codes.data());
  double error = 0, size = 0, zeros = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    error += std::pow(static_cast<double>(w[i] - scale * codes[i]), 2);
    size += std::pow(static_cast<double>(w[i]), 2);
    zeros += codes[i] == 0 ? 1 : 0;
  }
  return {error / size, zeros / static_cast<double>(w.size())};
}

/// Weights a second of products with one token; the matrix is far larger than the caches.
double decode_rate(DType dtype) {
  LargeMatrix matrix(dtype, 32768, 2048);
  return matrix.weights() / matrix.seconds(1);
}

ClaimMeasurement decode_speed() {
  const double ternary = decode_rate(DType::kTQ2_0), bf16 = decode_rate(DType::kBF16);
  return {ternary / bf16,
          fmt::format("{:.1f} against {:.1f} billion weights/s, 32768 x 2048 weights, one token, all threads",
                      ternary / 1e9, bf16 / 1e9)};
}

constexpr size_t kDenseSteps = 150, kFurtherSteps = 100;

/// The experiment, made when first needed.
UpCycling& experiment() {
  static UpCycling made(kDenseSteps, kFurtherSteps);
  return made;
}

ExpertOptions mote() {
  return {};
}

const UpCycling::Result& run_of(const std::string& name, const ExpertOptions& options, uint64_t seed) {
  return experiment().run(fmt::format("{}-{}", name, seed), &options, seed);
}

constexpr uint64_t kSeeds = 3;
constexpr const char* kWhat =
    "made-up language, width 256, 2 layers, 150 steps dense, then 100 of 512 tokens, mean of 3 seeds";

const UpCycling::Result& mote_run(uint64_t seed = 0) {
  return run_of("mote", mote(), seed);
}
const UpCycling::Result& full_run(uint64_t seed = 0) {
  ExpertOptions options;
  options.used = 2;
  options.shared = ExpertOptions::Shared::kNone;
  options.ternary = false;
  return run_of("full", options, seed);
}
const UpCycling::Result& ternary_shared_run() {
  ExpertOptions options;
  options.shared = ExpertOptions::Shared::kTernary;
  return run_of("ternary-shared", options, 0);
}
const UpCycling::Result& random_run() {
  ExpertOptions options;
  options.start = ExpertOptions::Start::kRandom;
  return run_of("random", options, 0);
}

double mean_loss(const UpCycling::Result& (*run)(uint64_t)) {
  double sum = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) sum += run(seed).loss;
  return sum / static_cast<double>(kSeeds);
}

ClaimMeasurement gain_over_dense() {
  double worst = 1e9;
  for (uint64_t seed = 0; seed < kSeeds; ++seed)
    worst = std::min(worst, experiment().dense_loss() - mote_run(seed).loss);
  const double further = experiment().run("dense", nullptr, 0).loss;
  return {worst, fmt::format("least of 3 seeds; dense start {:.4f}, MoTE {:.4f}, dense trained on {:.4f}; {}",
                             experiment().dense_loss(), mean_loss(mote_run), further, kWhat)};
}

ClaimMeasurement loss_over_full() {
  const double a = mean_loss(mote_run), b = mean_loss(full_run);
  return {a / b - 1, fmt::format("loss {:.4f} against {:.4f} of 4 experts top-2 in full precision; {}", a, b, kWhat)};
}

/// Routed ternary experts and a shared one in bfloat16 over four in bfloat16.
ClaimMeasurement bytes_over_full() {
  UpCycling& e = experiment();
  const uint64_t a = UpCycling::expert_bytes(e.quantised(mote_run().path, {{"_shexp", DType::kBF16}}));
  const uint64_t b = UpCycling::expert_bytes(e.quantised(full_run().path, {{"_exps", DType::kBF16}}));
  return {static_cast<double>(a) / static_cast<double>(b),
          fmt::format("{} against {} bytes: four TQ2_0 and one BF16 expert over four BF16", a, b)};
}

/// Loss of the baseline with experts in three bits less that of MoTE with the shared expert in four.
ClaimMeasurement equal_bytes() {
  UpCycling& e = experiment();
  double a = 0, b = 0;
  uint64_t bytes_a = 0, bytes_b = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::string ternary = e.quantised(mote_run(seed).path, {{"_shexp", DType::kQ4_0}});
    const std::string full = e.quantised(full_run(seed).path, {{"_exps", DType::kBitMod3}});
    a += e.loss_of(ternary) / kSeeds;
    b += e.loss_of(full) / kSeeds;
    bytes_a = UpCycling::expert_bytes(ternary);
    bytes_b = UpCycling::expert_bytes(full);
  }
  return {b - a, fmt::format("loss {:.4f} in {} bytes (shared Q4_0) against {:.4f} in {} (all experts BITMOD3); {}", a,
                             bytes_a, b, bytes_b, kWhat)};
}

ClaimMeasurement ablation(const UpCycling::Result& (*run)(), const char* what) {
  const double a = run().loss, b = mote_run().loss;
  return {a - b, fmt::format("loss {:.4f} with {} against {:.4f}; made-up language, one seed", a, what, b)};
}

ClaimMeasurement export_error() {
  const auto [errors, other_best] = experiment().compare(mote_run());
  const auto below = std::lower_bound(errors.begin(), errors.end(), 1e-5) - errors.begin();
  return {errors[errors.size() / 2],
          fmt::format("median of {} tokens; {:.1f} % below 1e-5, worst {:.1e} (sums in another order move a rounding)",
                      errors.size(), 100.0 * static_cast<double>(below) / static_cast<double>(errors.size()),
                      errors.back())};
}

/// Weights that the plan reads for a token against those of the shared expert, one routed expert and the rest.
ClaimMeasurement bytes_per_token() {
  const std::string path = experiment().quantised(mote_run().path, {{"_shexp", DType::kQ8_0}});
  Ledger ledger;
  PlanRequest request;
  request.context = UpCycling::kSequence;
  request.pack = false;
  const auto engine = Engine::plan_only(path, request, ledger);
  uint64_t expected = 0;
  for (const NamedTensor& tensor : engine->file().tensors()) {
    if (tensor.view.shape.rank() < 2 || tensor.name == "token_embd.weight") continue;
    expected += tensor.name.find("_exps.") != std::string::npos ? tensor.view.bytes() / 4 : tensor.view.bytes();
  }
  const uint64_t planned = engine->plan().weight_bytes_per_token;
  return {std::abs(static_cast<double>(planned) / static_cast<double>(expected) - 1),
          fmt::format("planned {} bytes a token, {} by shapes and types", planned, expected)};
}

}  // namespace

std::vector<Claim> mote_claims() {
  return {
      {"mote", kSource, "ternary products are those of integers", "wrong products", "lossless", 0, true,
       wrong_products},
      {"mote", kSource, "ternary packs convert into one another without loss", "wrong bytes", "lossless", 0, true,
       wrong_conversions},
      {"mote", kSource, "rounding a Gaussian matrix to its mean magnitude loses what theory says", "relative error",
       "0.262", 0.01, true,
       [] {
         const double mse = gaussian_rounding().first;
         return ClaimMeasurement{std::abs(mse / 0.262 - 1), fmt::format("relative squared error {:.4f}", mse)};
       }},
      {"mote", kSource, "and makes a third of it zeros", "difference", "31 %", 0.01, true,
       [] {
         const double zeros = gaussian_rounding().second;
         return ClaimMeasurement{std::abs(zeros - 0.31), fmt::format("{:.1f} % zeros", 100 * zeros)};
       }},
      {"mote", kSource, "decoding reads ternary experts faster than BF16 ones", "times", "-", 3, false, decode_speed},
      {"mote", kSource, "up-cycling improves on the dense model it starts from", "nats", "-", 0.02, false,
       gain_over_dense},
      {"mote", kSource, "ternary experts reach the loss of full-precision ones", "relative loss", "comparable", 0.02,
       true, loss_over_full},
      {"mote", kSource, "in a fraction of their bytes", "ratio", "0.38", 0.40, true, bytes_over_full},
      {"mote", kSource, "at equal bytes ternary experts beat full-precision ones quantised afterwards", "nats",
       "+4.3 % accuracy", 0, false, equal_bytes},
      {"mote", kSource, "a ternary shared expert is worse", "nats", "-7.6 points", 0, false,
       [] { return ablation(ternary_shared_run, "a ternary shared expert"); }},
      {"mote", kSource, "experts that start at random are worse", "nats", "worse", 0, false,
       [] { return ablation(random_run, "experts drawn at random"); }},
      {"mote", kSource, "an exported model computes what training computed", "relative difference", "lossless", 1e-5,
       true, export_error},
      {"mote", kSource, "and chooses the same tokens", "tokens", "lossless", 0, true,
       [] {
         const auto [errors, other_best] = experiment().compare(mote_run());
         return ClaimMeasurement{static_cast<double>(other_best),
                                 fmt::format("of {} tokens with another most likely id", errors.size())};
       }},
      {"mote", kSource, "a token reads the experts it is sent to and no other", "relative error", "-", 1e-9, true,
       bytes_per_token},
  };
}

}  // namespace mneme
