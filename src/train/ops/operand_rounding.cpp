#include "train/ops/operand_rounding.h"

#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "train/ops/vector_math.h"
#include "train/tape/op.h"

namespace mneme::train {
namespace {

/// Whether the product sums over the rows of this operand, as it lies in memory, and not over its columns.
bool sums_over_rows(ProductOperand operand) {
  return operand == ProductOperand::kWForDx || operand == ProductOperand::kDyForDw ||
         operand == ProductOperand::kXForDw;
}

}  // namespace

void to_operand(const OperandRounding& rounding, ProductOperand operand, const float* x, size_t rows, size_t columns,
                uint16_t* y) {
  if (!rounding.rounds(operand)) {
    parallel_for(rows * columns, kGrainElements,
                 [&](size_t begin, size_t end) { to_bf16(x + begin, end - begin, y + begin); });
    return;
  }
  // Bands of whole runs: one row, or as many rows as a run is long.
  const bool down = sums_over_rows(operand);
  const size_t band = down ? std::min(rounding.block, rows) : 1;
  parallel_for((rows + band - 1) / band, 1, [&](size_t begin, size_t end) {
    thread_local std::vector<float> rounded;
    for (size_t i = begin; i < end; ++i) {
      const size_t first = i * band, n_rows = std::min(band, rows - first), n = n_rows * columns;
      rounded.assign(x + first * columns, x + first * columns + n);
      round_blocks(rounding.format, rounding.block, down, rounded, n_rows, columns);
      to_bf16(rounded.data(), n, y + first * columns);
    }
  });
}

}  // namespace mneme::train
