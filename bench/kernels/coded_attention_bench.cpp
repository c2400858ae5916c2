// Decode attention over coded keys and values (kernels/coded_attention.h) beside f16 (kernels/attention.h): time a token of
// context and layer, bytes read per second. MNEME_CPU picks the target. With "cpu" times are those that the process had a
// processor, which leaves out what others took of a shared machine; only one thread makes sense then.
//
//   coded_attention_bench [threads] [runs] [context] [cpu]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/attention.h"
#include "kernels/coded_attention.h"
#include "tensor/dtype.h"

namespace mneme::bench {
namespace {

using kernels::CodedFormat;
using kernels::CodedMatrix;
using kernels::kBlockTokens;

struct Shape {
  size_t n_kv_heads, group, dim;
};

/// Blocks that one call of attention passes over, as in the stores.
constexpr size_t kSpan = 4;

bool of_process = false;

double seconds() {
  if (of_process) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// One layer of keys and values in a form: f16 (no format) or coded, blocks of a head one behind the other.
struct Layer {
  std::string name;
  Shape shape;
  size_t n_tokens;
  bool coded = false;
  CodedMatrix keys, values;
  size_t block_bytes;
  std::vector<std::byte> data;

  Layer(std::string n, const Shape& s, size_t tokens, const CodedFormat* key_format, const CodedFormat* value_format)
      : name(std::move(n)), shape(s), n_tokens(tokens), coded(key_format != nullptr) {
    PhiloxStream random(1);
    std::vector<float> x(kBlockTokens * s.dim);
    for (float& v : x) v = random.next_normal();
    std::vector<std::byte> block;
    if (coded) {
      keys = CodedMatrix(*key_format, kBlockTokens, s.dim);
      values = CodedMatrix(*value_format, s.dim, kBlockTokens);
      block.resize(keys.bytes() + values.bytes());
      keys.encode({x.data(), s.dim, 1}, keys.whole(), block.data());
      values.encode({x.data(), 1, s.dim}, values.whole(), block.data() + keys.bytes());
    } else {
      block.resize(2 * 2 * x.size());
      dtype_info(DType::kF16).encode(x.data(), nullptr, block.data(), x.size());
      std::memcpy(block.data() + 2 * x.size(), block.data(), 2 * x.size());
    }
    block_bytes = block.size();
    const size_t n_blocks = s.n_kv_heads * tokens / kBlockTokens;
    data.resize(n_blocks * block_bytes);
    for (size_t i = 0; i < n_blocks; ++i) std::memcpy(data.data() + i * block_bytes, block.data(), block_bytes);
  }

  /// Attention of one token over blocks [begin, end) of a head, a whole span; f16 spans hold their keys, then their values.
  void attend(size_t head, size_t begin, size_t end, const kernels::AttentionQueries& queries, const uint32_t* range,
              const kernels::AttentionTriple& out) const {
    const std::byte* at = data.data() + (head * (n_tokens / kBlockTokens) + begin) * block_bytes;
    if (coded) {
      std::vector<kernels::BlockKeys> block_keys;
      std::vector<kernels::BlockValues> block_values;
      for (size_t b = begin; b < end; ++b, at += block_bytes) {
        const std::byte* const next = at + (end - begin) * block_bytes;  // what lies there is not looked at
        block_keys.push_back({&keys, at, shape.dim, nullptr, nullptr, next});
        block_values.push_back({&values, at + keys.bytes(), nullptr, next + keys.bytes()});
      }
      kernels::attend_blocks(queries, block_keys, block_values, out);
      return;
    }
    const size_t row = shape.dim * 2, half = kSpan * kBlockTokens * row;
    kernels::attend(queries, {at, at + half, row, row, DType::kF16, range, range + queries.n_rows, at + 2 * half, at + 3 * half},
                    out);
  }
};

double run_once(const Layer& layer) {
  const size_t n_rows = layer.shape.group, dim = layer.shape.dim, n_blocks = layer.n_tokens / kBlockTokens;
  PhiloxStream random(2);
  std::vector<float> q(n_rows * dim);
  for (float& x : q) x = random.next_normal();
  std::vector<uint32_t> range(2 * n_rows, 0);
  std::fill(range.begin() + static_cast<long>(n_rows), range.end(), static_cast<uint32_t>(kSpan * kBlockTokens));
  const double start = seconds();
  parallel_for(layer.shape.n_kv_heads * n_blocks / kSpan, 1, [&](size_t begin, size_t end) {
    std::vector<float> max(n_rows), sum(n_rows), out(n_rows * dim);
    const kernels::AttentionQueries queries{q.data(), n_rows, dim, dim, dim, 1 / std::sqrt(static_cast<float>(dim)), 0};
    for (size_t i = begin; i < end; ++i) {
      std::fill(max.begin(), max.end(), -std::numeric_limits<float>::infinity());
      std::fill(sum.begin(), sum.end(), 0.0f);
      std::fill(out.begin(), out.end(), 0.0f);
      const size_t first = i * kSpan;
      layer.attend(first / n_blocks, first % n_blocks, first % n_blocks + kSpan, queries, range.data(),
                   {max.data(), sum.data(), out.data(), dim});
    }
  });
  return seconds() - start;
}

void bench(const Shape& shape, size_t context, int runs) {
  using Groups = CodedFormat::Groups;
  using Scales = CodedFormat::Scales;
  std::vector<Layer> layers;
  const auto add = [&](const std::string& name, uint8_t bits, Groups keys, Scales scales, uint32_t group) {
    const CodedFormat key{bits, keys, scales, group}, value{bits, Groups::kAlongLanes, scales, group};
    layers.emplace_back(name, shape, context, &key, &value);
  };
  layers.emplace_back("f16", shape, context, nullptr, nullptr);
  add("kivi:2", 2, Groups::kAlongLanes, Scales::kFloat16, 32);
  add("kivi:2,group=64", 2, Groups::kAlongLanes, Scales::kFloat16, 64);
  add("kivi:3", 3, Groups::kAlongLanes, Scales::kFloat16, 32);
  add("kivi:4", 4, Groups::kAlongLanes, Scales::kFloat16, 32);
  add("kivi:8", 8, Groups::kAlongLanes, Scales::kFloat16, 32);
  add("token:4", 4, Groups::kAlongDepth, Scales::kFloat16, 32);
  add("bfp:4", 4, Groups::kAlongDepth, Scales::kExponent, 32);
  // Rounds over all forms, so that a slow moment of the machine meets them all; f16 first in each.
  std::vector<std::vector<double>> times(layers.size());
  for (int i = 0; i <= runs; ++i) {
    for (size_t l = 0; l < layers.size(); ++l) {
      const double t = run_once(layers[l]);
      if (i > 0) times[l].push_back(t);
    }
  }
  for (size_t l = 0; l < layers.size(); ++l) {
    std::vector<double> ratio;
    for (size_t i = 0; i < times[l].size(); ++i) ratio.push_back(times[0][i] / times[l][i]);
    std::sort(ratio.begin(), ratio.end());
    std::sort(times[l].begin(), times[l].end());
    const double median = times[l][times[l].size() / 2];
    fmt::print("{}x{} dim {:3} context {:6} {:16} {:7.3f} ms a layer, {:6.2f} GB/s, {:.3f} of f16's bytes, {:.2f} ({:.2f} to {:.2f}) "
               "times f16's speed\n",
               shape.n_kv_heads, shape.group, shape.dim, context, layers[l].name, median * 1e3,
               static_cast<double>(layers[l].data.size()) / median / 1e9,
               static_cast<double>(layers[l].data.size()) / static_cast<double>(layers[0].data.size()),
               ratio[ratio.size() / 2], ratio.front(), ratio.back());
  }
}

}  // namespace
}  // namespace mneme::bench

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0, runs = argc > 2 ? std::atoi(argv[2]) : 7;
  const size_t context = argc > 3 ? static_cast<size_t>(std::atol(argv[3])) / 256 * 256 : 32768;
  mneme::bench::of_process = argc > 4 && std::strcmp(argv[4], "cpu") == 0;
  if (threads > 0) mneme::set_n_threads(threads);
  for (const mneme::bench::Shape shape : {mneme::bench::Shape{8, 4, 64}, {8, 4, 128}, {8, 1, 64}}) {
    mneme::bench::bench(shape, context, runs);
  }
}
