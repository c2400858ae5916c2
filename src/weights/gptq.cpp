#include "weights/gptq.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/parallel.h"
#include "tensor/block_codes.h"

namespace mneme {
namespace {

double dot(const double* a, const double* b, size_t n) {
  double parts[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t j = 0; j < 8; ++j) parts[j] += a[i + j] * b[i + j];
  }
  double sum = 0;
  for (double part : parts) sum += part;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Replaces the lower triangle of the symmetric positive definite a [n, n] by L with a = L L^T.
void cholesky(std::vector<double>& a, size_t n) {
  constexpr size_t kBlock = 64;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = std::min(begin + kBlock, n);
    for (size_t j = begin; j < end; ++j) {
      double* const row = a.data() + j * n;
      row[j] = std::sqrt(std::max(row[j] - dot(row, row, j), 1e-300));
      for (size_t i = j + 1; i < end; ++i) a[i * n + j] = (a[i * n + j] - dot(a.data() + i * n, row, j)) / row[j];
    }
    parallel_for(n - end, 4, [&](size_t first, size_t last) {
      for (size_t i = end + first; i < end + last; ++i) {
        double* const row = a.data() + i * n;
        for (size_t j = begin; j < end; ++j) row[j] = (row[j] - dot(row, a.data() + j * n, j)) / a[j * n + j];
      }
    });
  }
}

}  // namespace

std::vector<float> gptq_factor(std::span<const float> gram, size_t columns, float damping) {
  assert(gram.size() == columns * columns);
  double mean = 0;
  for (size_t j = 0; j < columns; ++j) mean += static_cast<double>(gram[j * columns + j]);
  mean /= static_cast<double>(columns);
  if (!(mean > 0)) mean = 1;
  // With rows and columns in reverse order, H = L L^T turns into H = R R^T, R upper triangular, and U = R^-1.
  std::vector<double> a(columns * columns);
  for (size_t i = 0; i < columns; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      a[i * columns + j] = static_cast<double>(gram[(columns - 1 - i) * columns + columns - 1 - j]) / mean;
    }
    double& diagonal = a[i * columns + i];
    diagonal = (diagonal > 0 ? diagonal : 1) + static_cast<double>(damping);
  }
  cholesky(a, columns);
  // Columns of L^-1 by forward substitution; column c of L^-1, reversed, is column columns - 1 - c of U.
  std::vector<float> factor(columns * columns);
  parallel_dynamic(columns, [&](size_t c) {
    std::vector<double> x(columns, 0.0);
    x[c] = 1 / a[c * columns + c];
    for (size_t i = c + 1; i < columns; ++i) {
      x[i] = -dot(a.data() + i * columns + c, x.data() + c, i - c) / a[i * columns + i];
    }
    for (size_t i = c; i < columns; ++i) {
      factor[(columns - 1 - i) * columns + columns - 1 - c] = static_cast<float>(x[i]);
    }
  });
  return factor;
}

namespace {

/// One block of one row: codes, and the errors that later columns will take over.
class BlockEncoder {
 public:
  BlockEncoder(const DTypeInfo& info, size_t columns, std::span<const float> factor)
      : info_(info),
        access_(find_block_codes(info.dtype)),
        columns_(columns),
        factor_(factor),
        stored_(info.block_elements),
        chosen_(info.block_elements),
        work_(info.block_elements),
        codes_(info.block_elements),
        again_(info.block_bytes) {}

  /// Encodes row[begin, begin + block) to `to` and sets e[j] = (w_j - q_j) / U_jj.
  void encode(const float* row, size_t begin, const float* importance, std::byte* to, float* e) {
    const float* h = importance == nullptr ? nullptr : importance + begin;
    info_.encode(row + begin, h, to, block());
    if (access_ != nullptr) {
      read_group_levels(to);
      walk(row + begin, begin, e, [&](size_t j, float w) { return nearest_code(j, w); });
      access_->store(codes_.data(), to);
      return;
    }
    info_.decode(to, stored_.data(), block());
    find_levels();
    walk(row + begin, begin, e, [&](size_t j, float w) { return nearest(j, w); });
    info_.encode(chosen_.data(), h, again_.data(), block());
    info_.decode(again_.data(), work_.data(), block());
    if (std::equal(work_.begin(), work_.end(), chosen_.begin())) {
      std::copy(again_.begin(), again_.end(), to);
    } else {
      walk(row + begin, begin, e, [&](size_t j, float) { return stored_[j]; });
    }
  }

 private:
  size_t block() const { return info_.block_elements; }

  /// Runs the columns of the block one after another, with choose(j, w_j) as their values.
  template <class Choose>
  void walk(const float* w, size_t begin, float* e, const Choose& choose) {
    std::copy_n(w, block(), work_.begin());
    for (size_t j = 0; j < block(); ++j) {
      const float* u = factor_.data() + (begin + j) * columns_ + begin;
      chosen_[j] = choose(j, work_[j]);
      e[j] = (work_[j] - chosen_[j]) / u[j];
      for (size_t k = j + 1; k < block(); ++k) work_[k] -= e[j] * u[k];
    }
  }

  /// group_levels_[group][code], from blocks in which the elements of a group have as many codes as they are.
  void read_group_levels(const std::byte* block_bytes) {
    const size_t group = access_->group, count = access_->count;
    group_levels_.resize(block() / group * count);
    std::copy_n(block_bytes, info_.block_bytes, again_.begin());
    for (size_t first = 0; first < count; first += group) {
      for (size_t j = 0; j < block(); ++j) codes_[j] = static_cast<uint8_t>((first + j % group) % count);
      access_->store(codes_.data(), again_.data());
      info_.decode(again_.data(), stored_.data(), block());
      for (size_t j = 0; j < block(); ++j) group_levels_[j / group * count + codes_[j]] = stored_[j];
    }
  }

  float nearest_code(size_t j, float w) {
    const float* levels = group_levels_.data() + j / access_->group * access_->count;
    size_t best = 0;
    for (size_t c = 1; c < access_->count; ++c) {
      if (std::fabs(levels[c] - w) < std::fabs(levels[best] - w)) best = c;
    }
    codes_[j] = static_cast<uint8_t>(best);
    return levels[best];
  }

  void find_levels() {
    levels_ = stored_;
    std::sort(levels_.begin(), levels_.end());
    levels_.erase(std::unique(levels_.begin(), levels_.end()), levels_.end());
    peak_ = 0;
    for (size_t j = 1; j < block(); ++j) {
      if (std::fabs(stored_[j]) > std::fabs(stored_[peak_])) peak_ = j;
    }
  }

  /// The level next to w; the largest value stays, for it makes the scale.
  float nearest(size_t j, float w) const {
    if (j == peak_) return stored_[j];
    const auto above = std::lower_bound(levels_.begin(), levels_.end(), w);
    if (above == levels_.begin()) return *above;
    if (above == levels_.end()) return levels_.back();
    return w - *(above - 1) <= *above - w ? *(above - 1) : *above;
  }

  const DTypeInfo& info_;
  const BlockCodes* access_;
  size_t columns_;
  std::span<const float> factor_;
  std::vector<float> stored_, chosen_, work_, levels_, group_levels_;
  std::vector<uint8_t> codes_;
  std::vector<std::byte> again_;
  size_t peak_ = 0;
};

}  // namespace

void gptq_encode(std::span<float> w, size_t columns, std::span<const float> factor, const float* importance, DType to,
                 std::byte* out) {
  const DTypeInfo& info = dtype_info(to);
  const size_t rows = w.size() / columns, block = info.block_elements, bytes = row_bytes(to, columns);
  assert(columns % block == 0 && factor.size() == columns * columns);
  // Rows in small groups, so that a block's part of the factor is read once for several.
  constexpr size_t kRows = 8;
  parallel_dynamic((rows + kRows - 1) / kRows, [&](size_t group) {
    const size_t first = group * kRows, last = std::min(first + kRows, rows);
    std::vector<float> error(kRows * block);
    BlockEncoder encoder(info, columns, factor);
    for (size_t begin = 0; begin < columns; begin += block) {
      for (size_t r = first; r < last; ++r) {
        encoder.encode(w.data() + r * columns, begin, importance, out + r * bytes + begin / block * info.block_bytes,
                       error.data() + (r - first) * block);
      }
      for (size_t j = 0; j < block; ++j) {
        const float* u = factor.data() + (begin + j) * columns;
        for (size_t r = first; r < last; ++r) {
          const float e = error[(r - first) * block + j];
          float* const row = w.data() + r * columns;
          for (size_t k = begin + block; k < columns; ++k) row[k] -= e * u[k];
        }
      }
    }
  });
}

double output_error(std::span<const float> a, std::span<const float> b, std::span<const float> gram, size_t columns) {
  double total = 0;
  std::vector<double> e(columns);
  for (size_t r = 0; r < a.size() / columns; ++r) {
    for (size_t j = 0; j < columns; ++j)
      e[j] = static_cast<double>(a[r * columns + j]) - static_cast<double>(b[r * columns + j]);
    for (size_t i = 0; i < columns; ++i) {
      double sum = 0;
      for (size_t j = 0; j < columns; ++j) sum += static_cast<double>(gram[i * columns + j]) * e[j];
      total += e[i] * sum;
    }
  }
  return total;
}

}  // namespace mneme
