#include "train/adapter_start.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "train/ops/gemm.h"
#include "train/ops/vector_math.h"
#include "train/optim/subspace.h"

namespace mneme::train {
namespace {

/// difference = W_teacher - W - the terms that are frozen.
void subtract(const TensorView& teacher, const Parameter<float>& weight, const std::vector<LowRank<float>>& terms,
              float* difference) {
  const size_t columns = weight.columns;
  parallel_for(weight.rows, 16, [&](size_t begin, size_t end) {
    std::vector<float> row(columns);
    for (size_t i = begin; i < end; ++i) {
      decode_row(teacher, i, difference + i * columns);
      copy_row(weight, i, row.data());
      add_scaled(row.data(), -1.0f, columns, difference + i * columns);
    }
  });
  for (const LowRank<float>& term : terms) {
    if (term.a->frozen) term.add_to(difference, -1.0f);
  }
}

}  // namespace

bool AdapterOptions::targets_layer(const std::string& tensor_name) const {
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& target) {
    return target == "all" || tensor_name.ends_with("." + target + ".weight");
  });
}

void start_from_difference(Ledger& ledger, LlamaModel<float>& model, const ModelFile& teacher, uint64_t seed) {
  size_t most_rows = 0, most_columns = 0, most_values = 0, most_rank = 0;
  const auto for_each = [&](auto&& visit) {
    for (const Parameter<float>& weight : model.parameters().all()) {
      const std::vector<LowRank<float>> terms = model.low_rank_of(weight);
      if (!terms.empty() && !terms.back().a->frozen) visit(weight, terms);
    }
  };
  for_each([&](const Parameter<float>& weight, const std::vector<LowRank<float>>& terms) {
    most_rows = std::max(most_rows, weight.rows);
    most_columns = std::max(most_columns, weight.columns);
    most_values = std::max(most_values, weight.size());
    most_rank = std::max(most_rank, terms.back().rank());
  });
  Buffer memory(ledger, Tag::kScratch, (most_values + most_rank * most_rows) * sizeof(float), "difference of a matrix");
  float* const difference = memory.as<float>().data();
  float* const basis = difference + most_values;
  SubspaceFinder finder(ledger, most_rows, most_columns, most_rank);
  uint64_t draw = seed;
  for_each([&](const Parameter<float>& weight, const std::vector<LowRank<float>>& terms) {
    const LowRank<float>& term = terms.back();
    const size_t r = term.rank(), rows = weight.rows, columns = weight.columns;
    subtract(tensor_of(teacher, weight), weight, terms, difference);
    finder.left(difference, rows, columns, r, ++draw, basis);
    // Rows of U^T D are S V^T: their lengths are the singular values.
    gemm({r, columns, rows, false, false, rows, columns, columns}, 1.0f, basis, difference, 0.0f, term.a->value);
    for (size_t k = 0; k < r; ++k) {
      float* const a = term.a->value + k * columns;
      const float singular = std::sqrt(dot(a, a, columns));
      const float length = std::sqrt(singular / term.scale);  // of the column of B and the row of A
      scale(a, singular > 0 ? length / singular : 0.0f, columns, a);
      for (size_t i = 0; i < rows; ++i) term.b->value[i * r + k] = length * basis[k * rows + i];
    }
  });
}

}  // namespace mneme::train
