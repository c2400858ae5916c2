#include "weights/aqlm_quantizer.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/half.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "budget/buffer.h"
#include "kernels/codebook_search.h"
#include "kernels/matmul.h"
#include "kernels/vector_ops.h"
#include "weights/codebook_kmeans.h"

namespace mneme::aqlm {
namespace {

/// Rows that share the squares of a group's entries.
constexpr size_t kBlockRows = 64;
/// Added to the diagonal of G, in parts of its mean: a text never shows all directions.
constexpr float kDamping = 0.01f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// One matrix on its way. Rows have `columns_` columns, filled up to whole groups with zeros whose inputs are zero.
class Quantizer {
 public:
  Quantizer(std::span<const float> w, const Layout& layout, std::span<const float> gram, Ledger& ledger)
      : layout_(layout),
        group_(layout.scheme.group),
        n_books_(layout.scheme.codebooks),
        n_entries_(size_t{1} << layout.scheme.bits),
        rows_(layout.rows),
        groups_(layout.groups()),
        columns_(groups_ * group_),
        gram_memory_(ledger, Tag::kScratch, gram_bytes(gram.size()), "gram matrix of a matrix to be quantised"),
        memory_(ledger, Tag::kScratch, 3 * rows_ * columns_ * sizeof(float), "a matrix to be quantised"),
        product_(ledger),
        scales_(rows_),
        codes_(rows_ * groups_ * n_books_) {
    float* const floats = memory_.as<float>().data();
    w_ = floats;
    e_ = floats + rows_ * columns_;
    q_ = e_ + rows_ * columns_;
    for (size_t r = 0; r < rows_; ++r) {
      std::fill(std::copy_n(w.data() + r * layout.columns, layout.columns, w_ + r * columns_), w_ + (r + 1) * columns_,
                0.0f);
    }
    take_gram(gram);
  }

  /// Scales, codebooks and codes to begin with.
  void start(const QuantizerOptions& options) {
    for (size_t r = 0; r < rows_; ++r) {
      double sum = 0;
      for (size_t c = 0; c < columns_; ++c) sum += static_cast<double>(w_[r * columns_ + c]) * w_[r * columns_ + c];
      scales_[r] = to_half(std::sqrt(sum / static_cast<double>(layout_.columns)));
      const float inverse = scales_[r] != 0 ? 1 / scales_[r] : 0;
      for (size_t c = 0; c < columns_; ++c) e_[r * columns_ + c] = w_[r * columns_ + c] * inverse;
    }
    const std::span<float> rest(e_, rows_ * columns_);
    std::vector<float> values;
    for (size_t m = 0; m < n_books_; ++m) {
      const std::vector<float> centres = kmeans_codebook(rest, columns_, group_, layout_.scheme.bits, diagonal_,
                                                         options.kmeans_iterations, options.seed * kMostCodebooks + m);
      nearest_codes(rest, columns_, group_, diagonal_, centres, codes_.data() + m, n_books_);
      for (size_t g = 0; g < rows_ * groups_; ++g) {
        const float* entry = centres.data() + size_t{codes_[g * n_books_ + m]} * group_;
        for (size_t i = 0; i < group_; ++i) rest[g * group_ + i] -= entry[i];
      }
      values.insert(values.end(), centres.begin(), centres.end());
    }
    books_ = rounded(layout_, std::move(values));
    evaluate();
  }

  /// Codebooks by conjugate gradients on the normal equations, then scales.
  void fit_books(int steps) {
    const size_t n = books_.values.size();
    std::vector<double> x(n), residual = gather(), inverse = inverse_diagonal();
    std::vector<float> direction(n);
    for (double& v : residual) v = -v;
    double energy = 0;
    for (size_t i = 0; i < n; ++i) {
      direction[i] = static_cast<float>(inverse[i] * residual[i]);
      energy += inverse[i] * residual[i] * residual[i];
    }
    for (int step = 0; step < steps && energy > 0; ++step) {
      decode(direction, false);
      multiply();
      const std::vector<double> image = gather();
      double curvature = 0;
      for (size_t i = 0; i < n; ++i) curvature += image[i] * static_cast<double>(direction[i]);
      if (!(curvature > 0)) break;
      const double length = energy / curvature;
      double next = 0;
      for (size_t i = 0; i < n; ++i) {
        x[i] += length * static_cast<double>(direction[i]);
        residual[i] -= length * image[i];
        next += inverse[i] * residual[i] * residual[i];
      }
      const double turn = next / energy;
      energy = next;
      for (size_t i = 0; i < n; ++i) {
        direction[i] = static_cast<float>(inverse[i] * residual[i] + turn * static_cast<double>(direction[i]));
      }
    }
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(static_cast<double>(books_.values[i]) + x[i]);
    const double before = loss_;
    Codebooks old = std::exchange(books_, rounded(layout_, std::move(values)));
    evaluate();
    if (!(loss_ <= before)) {  // rounding took more than the fit gave
      books_ = std::move(old);
      evaluate();
    }
  }

  void fit_scales() {
    const std::vector<float> old = scales_;
    const double before = loss_;
    std::fill(scales_.begin(), scales_.end(), 1.0f);
    decode(books_.values, false);
    multiply();
    const kernels::VectorOps& ops = kernels::vector_ops();
    for (size_t r = 0; r < rows_; ++r) {
      const float* image = q_ + r * columns_;
      const float self = ops.dot(image, e_ + r * columns_, columns_);
      const float wanted = ops.dot(image, w_ + r * columns_, columns_) / self;
      scales_[r] = self > 0 && std::fabs(wanted) < 65504 ? to_half(wanted) : old[r];
    }
    evaluate();
    if (!(loss_ <= before)) {
      scales_ = old;
      evaluate();
    }
  }

  /// One search over all codes; `random` orders the groups.
  void search(PhiloxStream& random, size_t beam) {
    std::vector<uint32_t> order(groups_);
    std::iota(order.begin(), order.end(), 0u);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.next_below(i)]);
    std::vector<TransposedBook> books;
    for (size_t m = 0; m < n_books_; ++m) books.emplace_back(book(m), group_);
    parallel_dynamic((rows_ + kBlockRows - 1) / kBlockRows, [&](size_t item) {
      const size_t first = item * kBlockRows, last = std::min(rows_, first + kBlockRows), n = books.front().padded;
      Scratch scratch{std::vector(n_books_, std::vector<float>(n)), std::vector<float>(n)};
      for (uint32_t j : order) search_group(j, first, last, books, n_books_ == 1 ? 1 : beam, scratch);
    });
    evaluate();
  }

  double relative_loss() const { return norm_ > 0 ? loss_ / norm_ : 0; }

  std::vector<std::byte> stream() const {
    std::vector<std::byte> out(layout_.bytes());
    write_head(layout_, books_, scales_, out.data());
    parallel_for(layout_.stripes(), 1, [&](size_t begin, size_t end) {
      for (size_t stripe = begin; stripe < end; ++stripe) {
        for (size_t j = 0; j < groups_; ++j) {
          for (size_t m = 0; m < n_books_; ++m) {
            uint16_t codes[kStripe] = {};
            for (size_t r = 0; r < std::min(kStripe, rows_ - stripe * kStripe); ++r) {
              codes[r] = codes_[((stripe * kStripe + r) * groups_ + j) * n_books_ + m];
            }
            pack_run(layout_.scheme.bits, codes, out.data() + layout_.run(stripe, j, m));
          }
        }
      }
    });
    return out;
  }

 private:
  uint64_t gram_bytes(size_t given) const { return given > layout_.columns ? columns_ * columns_ * sizeof(float) : 0; }
  bool is_full() const { return gram_memory_.size() > 0; }

  static float to_half(double v) {
    const float half = f16_to_f32(f32_to_f16(static_cast<float>(v)));
    if (!std::isfinite(half)) {
      fail(ErrorCode::kInvalidArgument, "[quantize] expected rows of a root mean square below 65504, found {}", v);
    }
    return half;
  }

  /// G over its mean diagonal, damped.
  void take_gram(std::span<const float> gram) {
    const size_t n = layout_.columns;
    diagonal_.assign(columns_, 0.0f);
    double mean = 0;
    for (size_t c = 0; c < n; ++c) {
      diagonal_[c] = gram.empty() ? 1.0f : is_full() ? gram[c * n + c] : gram[c];
      mean += static_cast<double>(diagonal_[c]) / static_cast<double>(n);
    }
    const float scale = mean > 0 ? static_cast<float>(1 / mean) : 0.0f, damping = mean > 0 ? kDamping : 1.0f;
    for (float& v : diagonal_) v = v * scale + damping;
    if (is_full()) {
      float* const g = gram_memory_.as<float>().data();
      std::fill_n(g, columns_ * columns_, 0.0f);
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) g[i * columns_ + j] = gram[i * n + j] * scale;
      }
      for (size_t c = 0; c < columns_; ++c) g[c * columns_ + c] = diagonal_[c];
    }
    std::copy_n(w_, rows_ * columns_, e_);
    multiply();
    norm_ = error();
  }

  std::span<const float> book(size_t m) const {
    return std::span(books_.values).subspan(m * n_entries_ * group_, n_entries_ * group_);
  }

  /// e = s * the sums of entries of `values` [M][2^B][g], less W where that is asked for.
  void decode(std::span<const float> values, bool less_w) {
    parallel_for(rows_, 8, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        const uint16_t* codes = codes_.data() + r * groups_ * n_books_;
        float* out = e_ + r * columns_;
        for (size_t j = 0; j < groups_; ++j, codes += n_books_, out += group_) {
          float sum[kMostGroup] = {};
          for (size_t m = 0; m < n_books_; ++m) {
            const float* entry = values.data() + (m * n_entries_ + codes[m]) * group_;
            for (size_t i = 0; i < group_; ++i) sum[i] += entry[i];
          }
          for (size_t i = 0; i < group_; ++i) out[i] = scales_[r] * sum[i];
        }
        if (!less_w) continue;
        for (size_t c = 0; c < columns_; ++c) e_[r * columns_ + c] -= w_[r * columns_ + c];
      }
    });
  }

  /// q = e G
  void multiply() {
    if (!is_full()) {
      const kernels::VectorOps& ops = kernels::vector_ops();
      parallel_for(rows_, 8, [&](size_t begin, size_t end) {
        for (size_t r = begin; r < end; ++r)
          ops.multiply(e_ + r * columns_, diagonal_.data(), columns_, q_ + r * columns_);
      });
      return;
    }
    product_.set(e_, rows_, columns_);
    const kernels::Matrix g{DType::kF32, kernels::Layout::kPlain, columns_, columns_, gram_memory_.data()};
    kernels::matmul(g, product_, nullptr, q_, columns_);
  }

  /// Sum of e q.
  double error() const {
    double sum = 0;
    const kernels::VectorOps& ops = kernels::vector_ops();
    for (size_t r = 0; r < rows_; ++r)
      sum += static_cast<double>(ops.dot(e_ + r * columns_, q_ + r * columns_, columns_));
    return sum;
  }

  void evaluate() {
    decode(books_.values, true);
    multiply();
    loss_ = error();
    if (!std::isfinite(loss_)) fail(ErrorCode::kInvalidArgument, "[quantize] expected a finite error, found {}", loss_);
  }

  /// For each entry the sum of s q over the groups that have its code: half the gradient of L where q = (V - W) G.
  std::vector<double> gather() const {
    std::vector<double> out(n_books_ * n_entries_ * group_);
    parallel_for(n_books_, 1, [&](size_t begin, size_t end) {
      for (size_t m = begin; m < end; ++m) {
        for (size_t g = 0; g < rows_ * groups_; ++g) {
          const double scale = static_cast<double>(scales_[g / groups_]);
          double* to = out.data() + (m * n_entries_ + codes_[g * n_books_ + m]) * group_;
          for (size_t i = 0; i < group_; ++i) to[i] += scale * static_cast<double>(q_[g * group_ + i]);
        }
      }
    });
    return out;
  }

  /// One over the diagonal of the normal equations; zero for entries without a code.
  std::vector<double> inverse_diagonal() const {
    std::vector<double> out(n_books_ * n_entries_ * group_);
    for (size_t g = 0; g < rows_ * groups_; ++g) {
      const double scale = static_cast<double>(scales_[g / groups_]), weight = scale * scale;
      const float* h = diagonal_.data() + g % groups_ * group_;
      for (size_t m = 0; m < n_books_; ++m) {
        double* to = out.data() + (m * n_entries_ + codes_[g * n_books_ + m]) * group_;
        for (size_t i = 0; i < group_; ++i) to[i] += weight * static_cast<double>(h[i]);
      }
    }
    for (double& v : out) v = v > 0 ? 1 / v : 0;
    return out;
  }

  /// What a row may choose for a group: a code of each codebook, their sum less that of the codes it has, and the
  /// change of L over s^2.
  struct Choice {
    float change = 0;
    float vector[kMostGroup] = {};
    uint16_t codes[kMostCodebooks] = {};
  };
  /// Working memory of one thread: the squares c A c of the entries of each codebook, and what they change.
  struct Scratch {
    std::vector<std::vector<float>> squares;
    std::vector<float> values;
  };

  /// The best choice of a row for a group, by a beam over its codebooks. `a` is G of the group, `pull` is q / s.
  Choice best_choice(const uint16_t* now, const float* a, const float* pull, const std::vector<TransposedBook>& books,
                     size_t beam, Scratch& scratch) const {
    const kernels::CodebookOps& ops = kernels::codebook_ops();
    struct Candidate {
      float change;
      size_t from, entry;
    };
    std::array<Choice, kMostBeam> choices, next;
    std::copy_n(now, n_books_, choices[0].codes);
    size_t n_choices = 1;
    for (size_t m = 0; m < n_books_; ++m) {
      const std::span<const float> entries = book(m);
      const float* const old = entries.data() + size_t{now[m]} * group_;
      std::array<Candidate, kMostBeam> best;
      size_t n_best = 0;
      const auto offer = [&](const Candidate& candidate) {
        if (n_best == beam && !(candidate.change < best[n_best - 1].change)) return;
        size_t at = n_best < beam ? n_best++ : n_best - 1;
        for (; at > 0 && candidate.change < best[at - 1].change; --at) best[at] = best[at - 1];
        best[at] = candidate;
      };
      for (size_t h = 0; h < n_choices; ++h) {
        // With u the vector less the old entry, an entry c makes the change 2 (u + c) . pull + (u + c) A (u + c).
        float u[kMostGroup], slope[kMostGroup], base = 0;
        for (size_t i = 0; i < group_; ++i) u[i] = choices[h].vector[i] - old[i];
        for (size_t i = 0; i < group_; ++i) {
          float image = 0;
          for (size_t k = 0; k < group_; ++k) image += a[i * group_ + k] * u[k];
          slope[i] = 2 * (pull[i] + image);
          base += u[i] * (2 * pull[i] + image);
        }
        const float* const squares = scratch.squares[m].data();
        if (beam == 1) {
          Candidate only{0, h, 0};
          only.entry = ops.least(books[m].values.data(), group_, books[m].padded, squares, slope, &only.change);
          only.change += base;
          offer(only);
          continue;
        }
        float* const values = scratch.values.data();
        ops.values(books[m].values.data(), group_, books[m].padded, squares, slope, values);
        float limit = n_best < beam ? kInfinity : best[n_best - 1].change - base;
        for (size_t k = 0; k < n_entries_; ++k) {
          if (!(values[k] < limit)) continue;
          offer({values[k] + base, h, k});
          if (n_best == beam) limit = best[n_best - 1].change - base;
        }
      }
      for (size_t i = 0; i < n_best; ++i) {
        next[i] = choices[best[i].from];
        next[i].change = best[i].change;
        next[i].codes[m] = static_cast<uint16_t>(best[i].entry);
        const float* const entry = entries.data() + best[i].entry * group_;
        for (size_t c = 0; c < group_; ++c) next[i].vector[c] += entry[c] - old[c];
      }
      std::swap(choices, next);
      n_choices = n_best;
    }
    return choices[0];
  }

  void search_group(size_t j, size_t first, size_t last, const std::vector<TransposedBook>& books, size_t beam,
                    Scratch& scratch) {
    const kernels::CodebookOps& ops = kernels::codebook_ops();
    const float* const rows = is_full() ? gram_memory_.as<float>().data() + j * group_ * columns_ : nullptr;
    float a[kMostGroup * kMostGroup] = {};
    for (size_t i = 0; i < group_; ++i) {
      a[i * group_ + i] = diagonal_[j * group_ + i];
      if (rows != nullptr) std::copy_n(rows + i * columns_ + j * group_, group_, a + i * group_);
    }
    for (size_t m = 0; m < n_books_; ++m) {
      ops.squares(books[m].values.data(), group_, books[m].padded, a, scratch.squares[m].data());
      std::fill(scratch.squares[m].begin() + static_cast<long>(n_entries_), scratch.squares[m].end(), kInfinity);
    }
    for (size_t r = first; r < last; ++r) {
      if (scales_[r] == 0) continue;
      float* const q = q_ + r * columns_;
      uint16_t* const codes = codes_.data() + (r * groups_ + j) * n_books_;
      float d[kMostGroup];
      for (size_t i = 0; i < group_; ++i) d[i] = q[j * group_ + i] / scales_[r];
      const Choice best = best_choice(codes, a, d, books, beam, scratch);
      if (!(best.change < 0) || std::equal(codes, codes + n_books_, best.codes)) continue;
      std::copy_n(best.codes, n_books_, codes);
      for (size_t i = 0; i < group_; ++i) d[i] = scales_[r] * best.vector[i];
      // Without other entries than the diagonal no group sees another.
      if (rows != nullptr) ops.add_rows(rows, columns_, group_, d, columns_, q);
    }
  }

  Layout layout_;
  size_t group_, n_books_, n_entries_, rows_, groups_, columns_;
  Buffer gram_memory_, memory_;  ///< G [columns, columns], or nothing; W, V - W and (V - W) G, or what stands for them.
  float *w_ = nullptr, *e_ = nullptr, *q_ = nullptr;
  kernels::MatmulInput product_;
  std::vector<float> diagonal_, scales_;
  Codebooks books_;
  std::vector<uint16_t> codes_;  ///< [row][group][codebook]
  double loss_ = 0, norm_ = 0;
};

}  // namespace

Quantized quantize(std::span<const float> w, const Layout& layout, std::span<const float> gram,
                   const QuantizerOptions& options, Ledger& ledger, const std::function<void(int, double)>& progress) {
  assert(w.size() == layout.rows * layout.columns);
  assert(gram.empty() || gram.size() == layout.columns || gram.size() == layout.columns * layout.columns);
  for (float v : w) {
    if (!std::isfinite(v)) fail(ErrorCode::kInvalidArgument, "[quantize] expected finite values, found {}", v);
  }
  Quantizer state(w, layout, gram, ledger);
  Quantized out;
  PhiloxStream random(options.seed, 1);
  state.start(options);
  out.losses.push_back(state.relative_loss());
  for (int round = 1; round <= options.most_rounds; ++round) {
    if (progress) progress(round, out.losses.back());
    const double before = out.losses.back();
    state.fit_books(options.conjugate_steps);
    state.fit_scales();
    out.losses.push_back(state.relative_loss());
    state.search(random, options.beam);
    out.losses.push_back(state.relative_loss());
    if (!(out.losses.back() < (1 - options.tolerance) * before)) break;
  }
  state.fit_books(options.conjugate_steps);
  state.fit_scales();
  out.losses.push_back(state.relative_loss());
  out.stream = state.stream();
  return out;
}

}  // namespace mneme::aqlm
