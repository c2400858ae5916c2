#include "eval/sensitivity.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "eval/divergence.h"
#include "eval/kv_quality.h"
#include "tensor/weight_format.h"

namespace mneme {
namespace {

/// Logits that are kept of the model as it is: every so many positions, so that a large vocabulary fits too.
constexpr size_t kMostLogits = size_t{1} << 24;

/// A matrix in another type while this lives.
class Rounded {
 public:
  Rounded(WeightMatrix& matrix, DType dtype, Ledger& ledger)
      : matrix_(matrix), stored_(matrix.stored), active_(matrix.active) {
    const size_t columns = matrix.columns(), bytes = row_bytes(dtype, columns);
    blocks_ = Buffer(ledger, Tag::kScratch, matrix.rows() * bytes, "rounded " + matrix.name);
    const DTypeInfo& info = dtype_info(dtype);
    parallel_dynamic(matrix.rows(), [&](size_t r) {
      std::vector<float> row(columns);
      decode_row(stored_, r, row.data());
      info.encode(row.data(), nullptr, blocks_.data() + r * bytes, columns);
    });
    matrix.stored = {dtype, stored_.shape, blocks_.data()};
    matrix.active = kernels::Matrix::from(matrix.stored);
  }
  Rounded(const Rounded&) = delete;
  Rounded& operator=(const Rounded&) = delete;
  ~Rounded() {
    matrix_.stored = stored_;
    matrix_.active = active_;
  }

 private:
  WeightMatrix& matrix_;
  TensorView stored_;
  kernels::Matrix active_;
  Buffer blocks_;
};

}  // namespace

MeasuredLosses measure_sensitivity(Engine& engine, std::span<const TokenId> tokens, DType probe,
                                   const SensitivityOptions& options,
                                   const std::function<void(size_t, size_t)>& progress) {
  const size_t window = std::min<size_t>({options.window, engine.plan().context, tokens.size()});
  if (window < 16) {
    fail(ErrorCode::kInvalidArgument, "[sensitivity] expected a text of 16 tokens or more, found {}", tokens.size());
  }
  const uint64_t n_windows = std::min<uint64_t>(std::max<uint64_t>(1, options.max_windows), tokens.size() / window);
  const size_t n_vocab = engine.model().hyper.n_vocab, first = window / 4;
  const size_t stride = std::max<size_t>(1, (n_windows * (window - first) * n_vocab + kMostLogits - 1) / kMostLogits);
  const auto answers = [&] {
    std::vector<std::vector<float>> out;
    for (uint64_t w = 0; w < n_windows; ++w) {
      out.push_back(window_logits(engine, tokens.subspan(w * window, window), first, stride));
    }
    return out;
  };
  std::vector<WeightMatrix*> matrices;
  for (const auto& matrix : engine.model().weights.matrices) {
    if (matrix->stored.data != nullptr && !is_stream(matrix->stored.dtype)) matrices.push_back(matrix.get());
  }
  const std::vector<std::vector<float>> reference = answers();
  MeasuredLosses out{probe, {}};
  for (size_t i = 0; i < matrices.size(); ++i) {
    progress(i, matrices.size());
    const Rounded rounded(*matrices[i], fit_shape(probe, matrices[i]->stored.shape), engine.ledger());
    const std::vector<std::vector<float>> found = answers();
    double sum = 0;
    size_t n = 0;
    for (size_t w = 0; w < found.size(); ++w) {
      for (size_t at = 0; at < found[w].size(); at += n_vocab, ++n) {
        sum += kl_divergence({reference[w].data() + at, n_vocab}, {found[w].data() + at, n_vocab});
      }
    }
    out.divergence[matrices[i]->name] = std::max(0.0, sum / static_cast<double>(n));
  }
  progress(matrices.size(), matrices.size());
  return out;
}

}  // namespace mneme
