// Speed of kernels/matmul.h on the matrices of a decoder layer of Llama 3.2 1B (width 2048, feed-forward 8192, keys
// 512): one token in bytes of weights per second beside plain reading of the same amount of memory, many tokens in
// operations per second beside the processor's peak (product_peak.h). Every round measures all types once, so that the
// drift of a shared machine meets all alike. MNEME_CPU picks the target. A shape, such as 512x256, is measured in place
// of the layer.
//
//   matmul_bench [threads] [rounds] [tokens] [types and shapes...]

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "../bench/kernels/product_peak.h"
#include "../src/kernels/matmul_test_data.h"
#include "base/checked_math.h"
#include "base/parallel.h"
#include "kernels/cpu.h"
#include "kernels/matmul.h"
#include "kernels/memory_bandwidth.h"
#include "tensor/weight_format.h"

namespace mneme::bench {
namespace {

using kernels::MatmulInput;
using kernels::Matrix;

struct Shape {
  size_t rows, columns;
};

const std::vector<Shape> kLayer = {{3072, 2048}, {2048, 2048}, {16384, 2048}, {2048, 8192}};
/// Layers that follow one another when one token is computed: more bytes than any cache holds.
constexpr size_t kDecodeBytes = size_t{600} << 20;

/// ROWSxCOLUMNS, or nothing.
std::optional<Shape> parse_shape(std::string_view text) {
  Shape shape{};
  const char* const end = text.data() + text.size();
  const auto rows = std::from_chars(text.data(), end, shape.rows);
  if (rows.ec != std::errc() || rows.ptr == end || *rows.ptr != 'x') return std::nullopt;
  const auto columns = std::from_chars(rows.ptr + 1, end, shape.columns);
  if (columns.ec != std::errc() || columns.ptr != end || shape.rows * shape.columns == 0) return std::nullopt;
  return shape;
}

/// A matrix as products take it: packed, as it is where there is no packed form, or a stream of nearly normal values of
/// deviation 0.02.
Buffer stored(Ledger& ledger, DType type, const Shape& shape) {
  if (!is_stream(type)) {
    const kernels::TestMatrix plain(type, shape.rows, shape.columns, 1);
    const size_t packed = kernels::packed_bytes(type, shape.rows, shape.columns);
    Buffer out(ledger, Tag::kWeights, packed > 0 ? packed : plain.bytes.size(), "matrix");
    if (packed > 0) {
      kernels::pack_matrix(plain.plain(), out.data());
    } else {
      std::memcpy(out.data(), plain.bytes.data(), plain.bytes.size());
    }
    return out;
  }
  kernels::TestMatrix words(DType::kBF16, shape.rows, shape.columns, 1);
  kernels::TestRandom random(1);
  std::vector<float> values(shape.rows * shape.columns);
  for (float& value : values) value = 0.02f * (random.real() + random.real() + random.real());
  dtype_info(DType::kBF16).encode(values.data(), nullptr, words.bytes.data(), values.size());
  const TensorView view{DType::kBF16, mneme::Shape{shape.rows, shape.columns}, words.bytes.data()};
  const auto encoder = weight_format(type).encoder(view);
  Buffer out(ledger, Tag::kWeights, encoder->bytes(), "stream");
  size_t at = 0;
  encoder->write(view, [&](std::span<const std::byte> part) {
    std::memcpy(out.data() + at, part.data(), part.size());
    at += part.size();
  });
  return out;
}

/// Weights of one type: the same random layer many times over, each at an address of its own.
struct Weights {
  DType dtype;
  Buffer memory;
  std::vector<Matrix> matrices;
  size_t bytes = 0;

  Weights(Ledger& ledger, DType type, std::span<const Shape> shapes, size_t least_bytes) : dtype(type) {
    std::vector<Buffer> layer;
    size_t layer_bytes = 0;
    for (const Shape& shape : shapes) {
      layer.push_back(stored(ledger, type, shape));
      bytes += layer.back().size();
      layer_bytes += round_up<size_t>(layer.back().size(), 64);
    }
    const size_t n_layers = std::max<size_t>(1, least_bytes / layer_bytes);
    bytes *= n_layers;
    memory = Buffer(ledger, Tag::kWeights, layer_bytes * n_layers, "weights");
    std::byte* at = memory.data();
    const bool plain = is_stream(type) || kernels::packed_bytes(type, shapes[0].rows, shapes[0].columns) == 0;
    const kernels::Layout layout = plain ? kernels::Layout::kPlain : kernels::Layout::kPacked;
    for (size_t i = 0; i < n_layers; ++i) {
      for (size_t m = 0; m < shapes.size(); ++m) {
        std::memcpy(at, layer[m].data(), layer[m].size());
        matrices.push_back({type, layout, shapes[m].rows, shapes[m].columns, at, 0});
        at += round_up<size_t>(layer[m].size(), 64);
      }
    }
  }

  double seconds(Ledger& ledger, size_t n_tokens) const {
    size_t columns = 0, rows = 0;
    for (const Matrix& matrix : matrices) {
      columns = std::max(columns, matrix.columns);
      rows = std::max(rows, matrix.rows);
    }
    std::vector<float> x = kernels::test_activations(n_tokens, columns, 2), y(n_tokens * rows);
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
  std::vector<Shape> shapes;
  for (int i = 4; i < argc; ++i) {
    if (const auto shape = parse_shape(argv[i])) {
      shapes.push_back(*shape);
      continue;
    }
    const DTypeInfo* type = find_dtype(std::string_view(argv[i]));
    if (type == nullptr) {
      fmt::print(stderr, "error: unknown type {}\n", argv[i]);
      return 1;
    }
    types.push_back(type->dtype);
  }
  if (types.empty()) types = {DType::kQ4_0, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K, DType::kBF16};
  if (shapes.empty()) shapes = kLayer;

  Ledger ledger;
  std::vector<Weights> weights;
  for (DType type : types) weights.emplace_back(ledger, type, shapes, n_tokens == 1 ? kDecodeBytes : 0);
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
    fmt::print("{:10} {} {}", dtype_info(types[i]).name, rates(values[i]), n_tokens == 1 ? "GB/s" : "G operations/s");
    const double per_byte = weights[i].operations(1) / 2 / static_cast<double>(weights[i].bytes);
    for (double& v : values[i]) v *= per_byte;
    fmt::print("{}\n", n_tokens == 1 ? fmt::format(", {} G weights/s", rates(values[i])) : "");
  }
  return 0;
}

}  // namespace
}  // namespace mneme::bench

int main(int argc, char** argv) {
  return mneme::bench::run(argc, argv);
}
