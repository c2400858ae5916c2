#include "eval/adapter_claims.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/philox.h"
#include "train/activation_policy.h"
#include "train/ops/packed_product.h"
#include "train/optim/optimizer.h"
#include "train/planned_memory.h"
#include "train/tape/executor.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

using namespace train;

constexpr const char* kSource = "arXiv 2306.08162";

LlamaSizes llama(size_t vocabulary, size_t width, size_t n_layers, size_t n_heads, size_t ffn_width, size_t context) {
  LlamaSizes sizes;
  sizes.vocabulary = vocabulary;
  sizes.width = width;
  sizes.n_layers = n_layers;
  sizes.n_heads = sizes.n_kv_heads = n_heads;
  sizes.ffn_width = ffn_width;
  sizes.context = context;
  sizes.tied_head = false;
  return sizes;
}

std::vector<float> normal(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> values(n);
  for (float& v : values) v = random.next_normal();
  return values;
}

double ratio(uint64_t full, uint64_t adapter) {
  return static_cast<double>(full) / static_cast<double>(adapter);
}

/// The paper's model and sequences: 7B parameters, 512 tokens, rank 8 on queries and values.
ClaimMeasurement planned_ratio() {
  const LlamaSizes sizes = llama(32000, 4096, 32, 32, 11008, 512);
  const AdapterOptions adapter;
  const uint64_t full = planned_memory(sizes, 512, nullptr, DType::kF32).total();
  const uint64_t int4 = planned_memory(sizes, 512, &adapter, DType::kQ4_0).total();
  const uint64_t int2 = planned_memory(sizes, 512, &adapter, DType::kQ2_K).total();
  constexpr double kGiB = 1 << 30;
  return {ratio(full, int4),
          fmt::format("planned, LLaMA 7B, 512 tokens, AdamW: {:.1f} GiB in f32, {:.2f} over Q4_0, {:.2f} over Q2_K",
                      static_cast<double>(full) / kGiB, static_cast<double>(int4) / kGiB,
                      static_cast<double>(int2) / kGiB)};
}

/// A llama file in Q2_K, every row of a matrix the same; removed at the end.
class PackedFile {
 public:
  explicit PackedFile(const LlamaSizes& sizes)
      : path_((std::filesystem::temp_directory_path() / fmt::format("mneme-claims-{}.gguf", ::getpid())).string()) {
    Ledger unused;
    LlamaOptions options;
    options.plan_only = true;
    LlamaModel<float> shapes(unused, sizes, options);
    std::vector<TensorInfo> infos;
    for (const auto& p : shapes.parameters().all()) {
      infos.push_back(p.is_matrix() ? TensorInfo{p.name, DType::kQ2_K, {p.rows, p.columns}}
                                    : TensorInfo{p.name, DType::kF32, {p.columns}});
    }
    GgufWriter writer(path_, Metadata(), infos);
    for (const TensorInfo& info : infos) {
      const size_t columns = info.shape.from_last(0);
      const std::vector<float> values = normal(columns, columns);
      std::vector<std::byte> row(row_bytes(info.dtype, columns));
      dtype_info(info.dtype).encode(values.data(), nullptr, row.data(), columns);
      for (uint64_t i = 0; i < info.shape.elements() / columns; ++i) writer.write(row);
    }
    writer.finish();
  }
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;
  ~PackedFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Peak of the ledger over one step.
uint64_t peak_of_a_step(const LlamaSizes& sizes, size_t n_tokens, const ModelFile* base,
                        const AdapterOptions* adapter) {
  Ledger ledger;
  LlamaOptions options;
  options.base = base;
  options.adapter = adapter;
  LlamaModel<float> model(ledger, sizes, options);
  model.initialise(1);
  apply_saving(model, kAnchorsOnly);
  const auto optimizer = make_optimizer(ledger, model.trained_list(), {});
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const std::vector<int32_t> tokens(n_tokens, 1);
  const std::vector<float> weights(n_tokens, 1.0f);
  const std::vector<uint32_t> starts{0, static_cast<uint32_t>(n_tokens)};
  executor.train({tokens, tokens, weights, starts, 1.0 / static_cast<double>(n_tokens)});
  for (size_t i = 0; i < model.trained_list().size(); ++i) optimizer->update(i, {0, 1e-4f, 1.0f});
  return ledger.peak(Tier::kRam);
}

/// The same by measurement, and how far the plan is off.
struct MeasuredStep {
  uint64_t full, packed;
  double plan_error;
};

MeasuredStep measure_step() {
  const LlamaSizes sizes = llama(4096, 1024, 3, 16, 2816, 512);
  const AdapterOptions adapter;
  const PackedFile file(sizes);
  const ModelFile base = open_gguf(file.path());
  const MeasuredStep step{peak_of_a_step(sizes, 512, nullptr, nullptr), peak_of_a_step(sizes, 512, &base, &adapter), 0};
  const auto error = [](uint64_t found, const PlannedMemory& plan) { return std::abs(ratio(found, plan.total()) - 1); };
  return {step.full, step.packed,
          std::max(error(step.full, planned_memory(sizes, 512, nullptr, DType::kF32)),
                   error(step.packed, planned_memory(sizes, 512, &adapter, DType::kQ2_K)))};
}

/// Measured once for the claims that ask for it.
const MeasuredStep& measured_step() {
  static const MeasuredStep step = measure_step();
  return step;
}

constexpr const char* kMeasuredShape = "43M parameters, width 1024, 512 tokens, AdamW, peak of the ledger over a step";

ClaimMeasurement measured_ratio() {
  const MeasuredStep& step = measured_step();
  return {ratio(step.full, step.packed),
          fmt::format("{}: {:.1f} MiB in f32, {:.1f} over Q2_K", kMeasuredShape,
                      static_cast<double>(step.full) / (1 << 20), static_cast<double>(step.packed) / (1 << 20))};
}

/// dx from codes against dx from the decoded matrix in double, relative.
ClaimMeasurement transposed_error() {
  constexpr size_t kRows = 688, kColumns = 1024, kTokens = 64;
  const std::vector<float> w = normal(kRows * kColumns, 1), dy = normal(kTokens * kRows, 2);
  const DTypeInfo& type = dtype_info(DType::kQ2_K);
  std::vector<std::byte> codes(row_bytes(type.dtype, kColumns) * kRows);
  type.encode(w.data(), nullptr, codes.data(), w.size());
  std::vector<float> decoded(w.size()), found(kTokens * kColumns);
  type.decode(codes.data(), decoded.data(), decoded.size());
  packed_multiply_transposed({type.dtype, {kRows, kColumns}, codes.data()}, dy.data(), kTokens, false, found.data());
  double error = 0, size = 0;
  for (size_t t = 0; t < kTokens; ++t) {
    std::vector<double> row(kColumns, 0);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kColumns; ++c)
        row[c] += static_cast<double>(dy[t * kRows + r]) * decoded[r * kColumns + c];
    }
    for (size_t c = 0; c < kColumns; ++c) {
      error += std::pow(row[c] - found[t * kColumns + c], 2);
      size += row[c] * row[c];
    }
  }
  return {std::sqrt(error / size), "dy W from Q2_K codes, 64 tokens, [688, 1024], against the decoded matrix in f64"};
}

}  // namespace

std::vector<Claim> adapter_claims() {
  return {
      {"int21", kSource, "adapters over four bits need a fraction of full fine-tuning at the paper's shapes", "times",
       "5.6", 5.6, false, planned_ratio},
      {"int21", kSource, "adapters over two bits need a fraction of full fine-tuning, measured", "times", "5.6", 5.6,
       false, measured_ratio},
      {"int21", kSource, "planned memory is the measured one", "relative error", "-", 0.05, true,
       [] {
         return ClaimMeasurement{measured_step().plan_error, kMeasuredShape};
       }},
      {"int21", kSource, "gradients pass through packed weights as through unpacked ones", "relative error", "-", 1e-5,
       true, transposed_error},
  };
}

}  // namespace mneme
