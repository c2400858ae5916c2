// Speed of kernels/matmul.h on the matrices of a decoder layer of Llama 3.2 1B (width 2048, feed-forward 8192, keys
// 512): one token in bytes of weights per second beside plain reading of the same amount of memory, many tokens in
// operations per second beside the processor's peak (product_peak.h). Every round measures all types once, so that the
// drift of a shared machine meets all alike. MNEME_CPU picks the target.
//
//   matmul_bench [threads] [rounds] [tokens] [types...]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "../bench/kernels/product_peak.h"
#include "../src/kernels/matmul_test_data.h"
#include "base/parallel.h"
#include "kernels/cpu.h"
#include "kernels/matmul.h"
#include "kernels/memory_bandwidth.h"

namespace mneme::bench {
namespace {

using kernels::MatmulInput;
using kernels::Matrix;

struct Shape {
  size_t rows, columns;
};

constexpr Shape kLayer[] = {{3072, 2048}, {2048, 2048}, {16384, 2048}, {2048, 8192}};
/// Layers that follow one another when one token is computed: more bytes than any cache holds.
constexpr size_t kDecodeBytes = size_t{600} << 20;

/// Packed weights of one type: the same random layer many times over, each at an address of its own.
struct Weights {
  DType dtype;
  Buffer memory;
  std::vector<Matrix> matrices;
  size_t bytes = 0;

  Weights(Ledger& ledger, DType type, size_t least_bytes) : dtype(type) {
    std::vector<kernels::TestMatrix> plain;
    size_t layer = 0;
    for (const Shape& shape : kLayer) {
      plain.emplace_back(type, shape.rows, shape.columns, 1);
      layer += kernels::packed_bytes(type, shape.rows, shape.columns);
    }
    const size_t n_layers = std::max<size_t>(1, least_bytes / layer);
    bytes = layer * n_layers;
    memory = Buffer(ledger, Tag::kWeights, bytes, "weights");
    std::byte* at = memory.data();
    for (size_t i = 0; i < n_layers; ++i) {
      for (const kernels::TestMatrix& matrix : plain) {
        matrices.push_back(kernels::pack_matrix(matrix.plain(), at));
        at += kernels::packed_bytes(type, matrix.rows, matrix.columns);
      }
    }
  }

  double seconds(Ledger& ledger, size_t n_tokens) const {
    std::vector<float> x = kernels::test_activations(n_tokens, 8192, 2), y(n_tokens * 16384);
    MatmulInput input(ledger);
    const auto start = std::chrono::steady_clock::now();
    for (const Matrix& matrix : matrices) {
      input.set(x.data(), n_tokens, matrix.columns);
      kernels::matmul(matrix, input, nullptr, y.data(), matrix.rows);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  double operations(size_t n_tokens) const {
    double sum = 0;
    for (const Matrix& matrix : matrices) sum += 2.0 * static_cast<double>(matrix.rows * matrix.columns * n_tokens);
    return sum;
  }
};

std::string rates(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return fmt::format("{:7.1f} ({:.1f} to {:.1f})", values[values.size() / 2], values.front(), values.back());
}

int run(int argc, char** argv) {
  if (argc > 1) set_n_threads(std::atoi(argv[1]));
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  const size_t n_tokens = argc > 3 ? static_cast<size_t>(std::atoi(argv[3])) : 1;
  std::vector<DType> types;
  for (int i = 4; i < argc; ++i) {
    const DTypeInfo* type = find_dtype(std::string_view(argv[i]));
    if (type == nullptr) {
      fmt::print(stderr, "error: unknown type {}\n", argv[i]);
      return 1;
    }
    types.push_back(type->dtype);
  }
  if (types.empty()) types = {DType::kQ4_0, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K, DType::kBF16};

  Ledger ledger;
  std::vector<Weights> weights;
  for (DType type : types) weights.emplace_back(ledger, type, n_tokens == 1 ? kDecodeBytes : 0);
  std::vector<std::vector<double>> values(types.size());
  std::vector<double> read, int8_peak, bf16_peak;
  for (int round = 0; round <= rounds; ++round) {
    for (size_t i = 0; i < types.size(); ++i) {
      const double seconds = weights[i].seconds(ledger, n_tokens);
      const double amount = n_tokens == 1 ? static_cast<double>(weights[i].bytes) : weights[i].operations(n_tokens);
      if (round > 0) values[i].push_back(amount / seconds / 1e9);
    }
    if (n_tokens == 1) read.push_back(kernels::measure_read_bandwidth(kDecodeBytes, 1).median / 1e9);
    if (n_tokens > 1) {
      const ProductPeak peak = product_peak();
      int8_peak.push_back(peak.int8 / 1e9);
      bf16_peak.push_back(peak.bf16 / 1e9);
    }
  }
  fmt::print("{} threads, {}, {} tokens, {} rounds\n", n_threads(), kernels::target_name(kernels::active_target()),
             n_tokens, rounds);
  if (n_tokens == 1) fmt::print("{:10} {} GB/s\n", "reading", rates(read));
  if (n_tokens > 1 && bf16_peak.front() > 0) {
    fmt::print("{:10} {} G operations/s\n{:10} {} G operations/s\n", "int8 peak", rates(int8_peak), "bf16 peak",
               rates(bf16_peak));
  }
  for (size_t i = 0; i < types.size(); ++i) {
    fmt::print("{:10} {} {}\n", dtype_info(types[i]).name, rates(values[i]), n_tokens == 1 ? "GB/s" : "G operations/s");
  }
  return 0;
}

}  // namespace
}  // namespace mneme::bench

int main(int argc, char** argv) {
  return mneme::bench::run(argc, argv);
}
