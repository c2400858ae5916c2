// Speed of kernels/attention.h: decode in bytes of keys and values per second beside plain reading of memory, prefill in
// floating-point operations per second beside the peak of one core. MNEME_CPU picks the target.
//
//   attention_bench [decode|prefill|all] [threads] [runs]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../bench/kernels/fma_peak.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/attention.h"
#include "kernels/cpu.h"
#include "kernels/vector_ops.h"

namespace mneme::bench {
namespace {

using kernels::AttentionKeys;
using kernels::AttentionQueries;
using kernels::AttentionTriple;

struct Shape {
  size_t n_kv_heads, group, head_dim;
};

constexpr Shape kShapes[] = {{8, 4, 64}, {8, 4, 128}, {8, 1, 64}, {4, 8, 128}};

double seconds(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// "median (min to max)" of amount / time over the runs, in billions.
std::string rate(double amount, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return fmt::format("{:7.2f} ({:.2f} to {:.2f})", amount / times[times.size() / 2] / 1e9, amount / times.back() / 1e9,
                     amount / times.front() / 1e9);
}

std::vector<double> repeat(int runs, FunctionRef<void()> work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(seconds(work));
  return times;
}

/// Keys and values of one layer.
struct Cache {
  Shape shape;
  size_t n_keys;
  bool by_head;  // [head, token, dim] or [token, head, dim]
  DType dtype;
  std::vector<std::byte> k, v;

  Cache(Shape s, size_t keys, bool head_major, DType type, const std::vector<std::byte>& noise)
      : shape(s), n_keys(keys), by_head(head_major), dtype(type) {
    const size_t bytes = keys * s.n_kv_heads * s.head_dim * dtype_info(type).block_bytes;
    for (auto* half : {&k, &v}) {
      half->resize(bytes);
      for (size_t at = 0; at < bytes; at += noise.size()) {
        std::memcpy(half->data() + at, noise.data(), std::min(noise.size(), bytes - at));
      }
    }
  }
  AttentionKeys head(size_t h, const uint32_t* first, const uint32_t* last) const {
    const size_t row = shape.head_dim * dtype_info(dtype).block_bytes;
    const size_t stride = by_head ? row : row * shape.n_kv_heads, offset = by_head ? h * n_keys * row : h * row;
    return {k.data() + offset, v.data() + offset, stride, stride, dtype, first, last};
  }
};

/// 64 KiB of normal numbers in the given type.
std::vector<std::byte> noise(DType dtype) {
  PhiloxStream random(1);
  std::vector<float> values(65536 / dtype_info(dtype).block_bytes);
  for (float& x : values) x = random.next_normal();
  std::vector<std::byte> bytes(65536);
  dtype_info(dtype).encode(values.data(), nullptr, bytes.data(), values.size());
  return bytes;
}

struct Rows {
  size_t n_rows, dim;
  std::vector<float> q, max, sum, out;
  std::vector<uint32_t> first, last;

  Rows(size_t n, size_t head_dim)
      : n_rows(n), dim(head_dim), q(n * head_dim), max(n), sum(n), out(n * head_dim), first(n, 0), last(n) {
    PhiloxStream random(2);
    for (float& x : q) x = random.next_normal();
  }
  void run(const Cache& cache, size_t head) {
    std::fill(max.begin(), max.end(), -std::numeric_limits<float>::infinity());
    std::fill(sum.begin(), sum.end(), 0.0f);
    std::fill(out.begin(), out.end(), 0.0f);
    const AttentionQueries queries = {q.data(), n_rows, dim, dim, dim, 1 / std::sqrt(static_cast<float>(dim)), 0};
    const AttentionTriple triple = {max.data(), sum.data(), out.data(), dim};
    attend(queries, cache.head(head, first.data(), last.data()), triple);
    finish_attention(triple, n_rows, dim, nullptr);
  }
};

/// The result of the active target against the scalar twin; ends the program when they differ.
void check(const Cache& cache, Rows& rows) {
  rows.run(cache, 0);
  const std::vector<float> fast = rows.out;
  const kernels::Target target = kernels::active_target();
  kernels::set_active_target(kernels::Target::kScalar);
  rows.run(cache, 0);
  kernels::set_active_target(target);
  for (size_t i = 0; i < fast.size(); ++i) {
    if (std::abs(fast[i] - rows.out[i]) <= 1e-4) continue;
    fmt::print(stderr, "[attention_bench] element {} is {}, the scalar twin has {}\n", i, fast[i], rows.out[i]);
    std::exit(1);
  }
}

double read_bandwidth(int runs) {
  std::vector<float> data(256u << 18, 1.0f);
  const auto times = repeat(runs, [&] {
    parallel_for(data.size() / 4096, 1, [&](size_t begin, size_t end) {
      volatile float keep = kernels::vector_ops().dot(data.data() + begin * 4096, data.data() + begin * 4096, (end - begin) * 4096);
      static_cast<void>(keep);
    });
  });
  const double bytes = static_cast<double>(data.size() * sizeof(float));
  fmt::print("read memory            {} GB/s\n", rate(bytes, times));
  return bytes / *std::min_element(times.begin(), times.end());
}

void bench_decode(int runs) {
  const double best = read_bandwidth(runs);
  for (const Shape& shape : kShapes) {
    for (DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
      const std::vector<std::byte> data = noise(dtype);
      for (bool by_head : {true, false}) {
        for (size_t n_keys : {1024, 4096, 32768}) {
          const size_t layer_bytes = 2 * n_keys * shape.n_kv_heads * shape.head_dim * dtype_info(dtype).block_bytes;
          const size_t n_layers = std::max<size_t>(1, (256u << 20) / layer_bytes);
          std::vector<Cache> layers;
          for (size_t i = 0; i < n_layers; ++i) layers.emplace_back(shape, n_keys, by_head, dtype, data);
          std::vector<Rows> rows(shape.n_kv_heads, Rows(shape.group, shape.head_dim));
          for (Rows& r : rows) std::fill(r.last.begin(), r.last.end(), static_cast<uint32_t>(n_keys));
          check(layers[0], rows[0]);
          const auto times = repeat(runs, [&] {
            for (const Cache& layer : layers) {
              parallel_dynamic(shape.n_kv_heads, [&](size_t h) { rows[h].run(layer, h); });
            }
          });
          const double bytes = static_cast<double>(layer_bytes * n_layers);
          fmt::print("decode {}x{} dim {:3} {:4} {:8} context {:6} {} GB/s, {:.2f} of reading\n", shape.n_kv_heads,
                     shape.group, shape.head_dim, dtype_info(dtype).name, by_head ? "by head" : "by token", n_keys,
                     rate(bytes, times), bytes / times[times.size() / 2] / best);
        }
      }
    }
  }
}

void bench_prefill(int runs) {
  double peak = 0;
  for (int i = 0; i < 5; ++i) peak = std::max(peak, fma_peak());
  fmt::print("peak of one core       {:7.2f} GFLOP/s\n", peak / 1e9);
  for (const Shape& shape : kShapes) {
    for (DType dtype : {DType::kF16, DType::kF32}) {
      for (size_t n_keys : {512, 4096}) {
        constexpr size_t kTokens = 512;
        const Cache cache(shape, n_keys, true, dtype, noise(dtype));
        std::vector<Rows> rows(shape.n_kv_heads, Rows(kTokens * shape.group, shape.head_dim));
        double pairs = 0;
        for (Rows& r : rows) {
          for (size_t i = 0; i < r.n_rows; ++i) {
            r.last[i] = static_cast<uint32_t>(n_keys - kTokens + 1 + i / shape.group);
            pairs += r.last[i];
          }
        }
        check(cache, rows[0]);
        const auto times =
            repeat(runs, [&] { parallel_dynamic(shape.n_kv_heads, [&](size_t h) { rows[h].run(cache, h); }); });
        const double operations = pairs * 4 * static_cast<double>(shape.head_dim);
        fmt::print("prefill {}x{} dim {:3} {:4} 512 tokens of {:5} {} GFLOP/s, {:.2f} of the peak of {} cores\n",
                   shape.n_kv_heads, shape.group, shape.head_dim, dtype_info(dtype).name, n_keys,
                   rate(operations, times), operations / times[times.size() / 2] / peak / n_threads(), n_threads());
      }
    }
  }
}

}  // namespace
}  // namespace mneme::bench

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "all";
  if (argc > 2) mneme::set_n_threads(std::max(1, std::atoi(argv[2])));
  const int runs = argc > 3 ? std::max(1, std::atoi(argv[3])) : 7;
  fmt::print("target {}, {} threads, {} runs: median (min to max)\n",
             mneme::kernels::target_name(mneme::kernels::active_target()), mneme::n_threads(), runs);
  if (what != "prefill") mneme::bench::bench_decode(runs);
  if (what != "decode") mneme::bench::bench_prefill(runs);
}
