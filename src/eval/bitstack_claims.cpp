#include "eval/bitstack_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>

#include "base/half.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "eval/format_trials.h"
#include "eval/stack_curve.h"
#include "kernels/subspace.h"
#include "kernels/vector_ops.h"
#include "tensor/bitstack.h"
#include "weights/bitstack_decomposition.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

constexpr const char* kModel = "models/pocket.gguf";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Best approximation of rank r of `w` diag(s), without diag(s) again.
void truncate(std::span<float> w, size_t rows, size_t columns, std::span<const float> s, size_t rank) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  for (size_t r = 0; r < rows; ++r) ops.multiply(w.data() + r * columns, s.data(), columns, w.data() + r * columns);
  const auto multiply = [&](const float* x, size_t n, bool transposed, float* y) {
    std::fill_n(y, n * (transposed ? columns : rows), 0.0f);
    for (size_t t = 0; t < n; ++t) {
      for (size_t r = 0; r < rows; ++r) {
        if (transposed) {
          ops.add_scaled(w.data() + r * columns, x[t * rows + r], columns, y + t * columns);
        } else {
          y[t * rows + r] = ops.dot(w.data() + r * columns, x + t * columns, columns);
        }
      }
    }
  };
  Ledger ledger;
  kernels::SubspaceFinder finder(ledger, rows, columns, rank, "truncated matrix", 4);
  std::vector<float> basis(rank * rows), image(rank * columns), row(columns);
  finder.left({rows, columns, multiply}, rank, 1, basis.data());
  multiply(basis.data(), rank, true, image.data());
  for (size_t r = 0; r < rows; ++r) {
    std::fill(row.begin(), row.end(), 0.0f);
    for (size_t j = 0; j < rank; ++j)
      ops.add_scaled(image.data() + j * columns, basis[j * rows + r], columns, row.data());
    for (size_t c = 0; c < columns; ++c) w[r * columns + c] = row[c] / s[c];
  }
}

/// The experiments on the pocket model: files and measurements that several claims share, made when first needed.
class Pocket {
 public:
  double original() const { return trials_.original(); }

  /// A BitStack file of the model: "average", "greedy" or "random" order, calibrated or not.
  std::string stack(const std::string& order, bool calibrated) {
    QuantizeOptions how;
    how.calibration = calibrated ? &trials_.calibration() : nullptr;
    how.stack.order = *bitstack::find_stack_order(order);
    how.stack.seed = 1;
    return trials_.file("BITSTACK", how, fmt::format("{}-{}", order, calibrated));
  }

  const std::vector<StackPoint>& curve() {
    if (curve_.empty()) {
      Ledger ledger;
      const auto engine = trials_.load(stack("average", true), ledger);
      curve_ = measure_stack_curve(*engine, trials_.scored_text(), FormatTrials::options(), 32, [](size_t, size_t) {});
    }
    return curve_;
  }

  /// Perplexity of a stack at bits a weight of its matrices.
  StackPoint at_bits(const std::string& path, double bits) {
    Ledger ledger;
    const auto engine = trials_.load(path, ledger);
    const BlockStack& stack = *engine->stack();
    size_t n = stack.least_blocks();
    while (n < stack.n_blocks() && stack.bits_per_weight(n + 1) <= bits) ++n;
    const uint64_t others = engine->plan().bytes(Tag::kWeights) - engine->plan().stack_bytes;
    return measure_stack_at(*engine, trials_.scored_text(), FormatTrials::options(), others + stack.bytes(n));
  }

  /// Perplexity with the stacked matrices rounded to integers with a minimum, groups of 128.
  double rounded(int bits) {
    return changed(fmt::format("rtn-{}", bits), [&](const TensorInfo& tensor, std::span<float> values) {
      const size_t columns = tensor.shape.from_last(0);
      for (size_t i = 0; i < values.size(); i += columns) {
        round_to_integers(values.subspan(i, columns), 128, {bits, true});
      }
    });
  }
  double truncated(double bits) {
    return changed("svd", [&](const TensorInfo& tensor, std::span<float> values) {
      const size_t columns = tensor.shape.from_last(0), rows = values.size() / columns;
      const auto rank =
          static_cast<size_t>(bits / 16 * static_cast<double>(rows * columns) / static_cast<double>(rows + columns));
      truncate(values, rows, columns, bitstack::channel_scales(trials_.calibration().find(tensor.name)->importance()),
               std::max<size_t>(1, rank));
    });
  }

  /// Seconds to grow from two to three blocks a matrix, and to quantise to 3 bits with GPTQ.
  std::pair<double, double> change_seconds() {
    Ledger ledger;
    const auto engine = trials_.load(stack("average", true), ledger);
    BlockStack& blocks = *engine->model().weights.stack;
    blocks.set_target(2 * blocks.least_blocks());
    auto start = std::chrono::steady_clock::now();
    blocks.set_target(3 * blocks.least_blocks());
    const double grow = seconds_since(start);
    QuantizeOptions how;
    how.gptq = true;
    how.calibration = &trials_.calibration();
    start = std::chrono::steady_clock::now();
    trials_.file("BITMOD3", how, "gptq");
    return {grow, seconds_since(start)};
  }

 private:
  double changed(const std::string& name, const FormatTrials::Change& change) {
    return trials_.perplexity_of(trials_.changed_file(name, "BITSTACK", change));
  }

  FormatTrials trials_{kModel};
  std::vector<StackPoint> curve_;
};

Pocket& pocket() {
  static Pocket experiments;
  return experiments;
}

/// Perplexity of the stack over that of integers of `bits` with minimum, at the same bytes.
ClaimMeasurement against_integers(int bits) {
  const double stored = bits + 32.0 / 128;
  const StackPoint point = pocket().at_bits(pocket().stack("average", true), stored);
  const double other = pocket().rounded(bits);
  return {point.quality.perplexity / other,
          fmt::format("perplexity {:.3f} at {:.3f} bits against {:.3f} at {:.3f} (groups of 128, rounded to nearest); "
                      "{:.3f} before; {}, "
                      "text of its own",
                      point.quality.perplexity, point.bits_per_weight, other, stored, pocket().original(), kModel)};
}

constexpr double kAblationBits = 2.2;

ClaimMeasurement against_stack(const std::string& order, bool calibrated, const char* what) {
  const StackPoint best = pocket().at_bits(pocket().stack("average", true), kAblationBits);
  const StackPoint other = pocket().at_bits(pocket().stack(order, calibrated), kAblationBits);
  return {other.quality.perplexity / best.quality.perplexity,
          fmt::format("perplexity {:.3f} {} against {:.3f}, at {:.2f} bits; {}, text of its own",
                      other.quality.perplexity, what, best.quality.perplexity, best.bits_per_weight, kModel)};
}

/// Products with one large matrix of n blocks of k vectors.
class LargeStack {
 public:
  LargeStack(uint32_t k, uint32_t n) : layout_{8192, 2048, k} {
    memory_ = Buffer(ledger_, Tag::kWeights, n * layout_.bytes(), "blocks");
    PhiloxStream random(1);
    const size_t signs = layout_.u_offset();
    for (uint32_t i = 0; i < n; ++i) {
      std::byte* block = memory_.data() + i * layout_.bytes();
      for (size_t w = 0; w < signs; w += 4) {
        const uint32_t word = random.next_u32();
        std::memcpy(block + w, &word, sizeof word);
      }
      const uint16_t half = f32_to_f16(0.05f);
      for (size_t h = signs; h < layout_.bytes(); h += 2) std::memcpy(block + h, &half, sizeof half);
      list_.offsets.push_back(i * layout_.bytes());
    }
    list_.vectors = k;
    list_.n_blocks = n;
    list_.base = memory_.data();
  }
  /// Weights a second and token, the median of several products.
  double rate(size_t n_tokens) {
    const kernels::Matrix w{
        DType::kBitStack, kernels::Layout::kPlain, layout_.rows, layout_.columns, nullptr, 0, &list_};
    PhiloxStream random(2);
    std::vector<float> x(n_tokens * w.columns), y(n_tokens * w.rows);
    for (float& v : x) v = random.next_normal();
    kernels::MatmulInput input(ledger_);
    std::vector<double> times;
    for (int i = 0; i < 6; ++i) {
      const auto start = std::chrono::steady_clock::now();
      input.set(x.data(), n_tokens, w.columns);
      kernels::matmul(w, input, nullptr, y.data(), w.rows);
      times.push_back(seconds_since(start));
    }
    std::sort(times.begin() + 1, times.end());
    return static_cast<double>(w.rows * w.columns * n_tokens) / times[3];
  }

 private:
  Ledger ledger_;
  bitstack::BlockLayout layout_;
  Buffer memory_;
  bitstack::BlockList list_;
};

/// One token by signs against one that takes a tile for itself, which a batch of many tokens tells from its time.
ClaimMeasurement speed(uint32_t k, uint32_t n) {
  LargeStack stack(k, n);
  const double one = stack.rate(1), many = stack.rate(128);
  return {
      one,
      fmt::format(
          "{:.2f} billion weights/s for one token, {:.2f} a token of 128; k = {}, {} blocks, 8192 x 2048, {} threads",
          one / 1e9, many / 1e9, k, n, n_threads())};
}

}  // namespace

std::vector<Claim> bitstack_claims() {
  const char* const source = "arXiv 2410.23918";
  const char* const table = "Llama-3.1-8B, 3877 MB: 79.28 against 1.5e6 (AWQ w2) and 1.7e5 (GPTQ w2)";
  return {
      {"bitstack", source, "Quality follows the memory, megabyte by megabyte",
       "rank correlation of bytes and perplexity over 32 sizes", "figure 1", -0.95, true,
       [] {
         std::vector<double> bytes, quality;
         for (const StackPoint& point : pocket().curve()) {
           bytes.push_back(static_cast<double>(point.bytes));
           quality.push_back(point.quality.perplexity);
         }
         const StackPoint &first = pocket().curve().front(), &last = pocket().curve().back();
         return ClaimMeasurement{
             rank_correlation(bytes, quality),
             fmt::format("perplexity {:.2f} at {:.2f} bits to {:.3f} at {:.2f}, {:.3f} before; {}, text of its own",
                         first.quality.perplexity, first.bits_per_weight, last.quality.perplexity, last.bits_per_weight,
                         pocket().original(), kModel)};
       }},
      {"bitstack", source, "Far better than plain 2-bit integers at their size", "of their perplexity", table, 0.5,
       true, [] { return against_integers(2); }},
      {"bitstack", source, "No worse than plain 3-bit integers at their size", "of their perplexity",
       "4506 MB: 12.55 against 17.01 (AWQ w3)", 1, true, [] { return against_integers(3); }},
      {"bitstack", source, "Near plain 4-bit integers at their size", "of their perplexity",
       "5541 MB: 8.14 against 6.63 (AWQ w4)", 1.1, true, [] { return against_integers(4); }},
      {"bitstack", source, "Scaling channels by their inputs matters", "times the perplexity without",
       "collapses without", 1.0001, false, [] { return against_stack("average", false, "without scales"); }},
      {"bitstack", source, "Absolute values decompose better than the weights themselves",
       "times the perplexity of plain SVD", "collapses with plain SVD", 1.5, false,
       [] {
         const StackPoint best = pocket().at_bits(pocket().stack("average", true), kAblationBits);
         const double other = pocket().truncated(kAblationBits);
         return ClaimMeasurement{other / best.quality.perplexity,
                                 fmt::format("perplexity {:.2f} against {:.3f} at {:.2f} bits; {}, text of its own",
                                             other, best.quality.perplexity, best.bits_per_weight, kModel)};
       }},
      {"bitstack", source, "Sorted blocks are no worse than blocks in random order",
       "times the perplexity in random order", "average >= greedy >= random", 1, false,
       [] { return against_stack("random", true, "in random order"); }},
      {"bitstack", source, "A change of size is far cheaper than quantising anew", "of the time of GPTQ",
       "seconds against hours", 0.2, true,
       [] {
         const auto [grow, gptq] = pocket().change_seconds();
         return ClaimMeasurement{
             grow / gptq,
             fmt::format("{:.2f} ms to go from two blocks a matrix to three, {:.0f} ms for GPTQ at 3 bits; {}",
                         1e3 * grow, 1e3 * gptq, kModel)};
       }},
      {"bitstack", source, "One token, four blocks of one vector", "weights/s", "3-10x over plain reconstruction",
       2.0e9, false, [] { return speed(1, 4); }},
      {"bitstack", source, "One token, four blocks of four vectors", "weights/s", "3-10x over plain reconstruction",
       0.72e9, false, [] { return speed(4, 4); }},
      {"bitstack", source, "One token, four blocks of sixteen vectors", "weights/s", "3-10x over plain reconstruction",
       0.15e9, false, [] { return speed(16, 4); }},
  };
}

}  // namespace mneme
