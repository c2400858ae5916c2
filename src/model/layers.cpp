#include "model/layers.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "base/checked_math.h"
#include "base/parallel.h"
#include "kernels/vector_ops.h"
#include "model/workspace.h"

namespace mneme {

uint64_t WeightMatrix::product_bytes(bool pack) const {
  const uint64_t repacked = pack ? packed_bytes() : 0;
  return repacked > 0 ? repacked : stored.bytes();
}

void WeightMatrix::release_stored(size_t offset, size_t length) const {
  if (mapping == nullptr) return;
  mapping->release(static_cast<size_t>(stored.data - mapping->bytes().data()) + offset, length);
}

void Linear::apply(Workspace& workspace, float* y, size_t y_stride) const {
  const LinearOutput output{*this, y, y_stride};
  apply_linears({&output, 1}, workspace);
}

namespace {

/// y += u B for u [n_tokens, rank]. Parallel over runs of the outputs, so that a run of B stays in the cache for all
/// tokens.
void add_low_rank(const LowRank& low_rank, const float* u, size_t n_tokens, size_t n_outputs, float* y,
                  size_t y_stride) {
  constexpr size_t kRun = 256;
  const kernels::VectorOps& ops = kernels::vector_ops();
  const size_t rank = low_rank.rank();
  const size_t grain = std::max<size_t>(1, 32768 / (n_tokens * rank * kRun));
  parallel_for(div_up(n_outputs, kRun), grain, [&](size_t begin, size_t end) {
    for (size_t run = begin; run < end; ++run) {
      const size_t first = run * kRun, n = std::min(kRun, n_outputs - first);
      for (size_t t = 0; t < n_tokens; ++t) {
        for (size_t k = 0; k < rank; ++k) {
          ops.add_scaled(low_rank.b_transposed + k * n_outputs + first, u[t * rank + k], n, y + t * y_stride + first);
        }
      }
    }
  });
}

}  // namespace

void apply_linears(std::span<const LinearOutput> outputs, Workspace& workspace) {
  assert(outputs.size() <= kMostLinears);
  const Workspace::Scope scope(workspace);
  const size_t n_tokens = workspace.input().n_tokens();
  std::array<kernels::MatmulTask, 2 * kMostLinears> tasks;
  std::array<float*, kMostLinears> inner{};
  size_t n_tasks = 0;
  for (const LinearOutput& out : outputs) {
    tasks[n_tasks++] = {out.layer.weight->active, out.layer.bias, out.y, out.y_stride};
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const LowRank& low_rank = outputs[i].layer.weight->low_rank;
    if (low_rank.rank() == 0) continue;
    inner[i] = workspace.floats(n_tokens * low_rank.rank());
    tasks[n_tasks++] = {low_rank.a, nullptr, inner[i], low_rank.rank()};
  }
  kernels::matmul(std::span(tasks).first(n_tasks), workspace.input());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const LinearOutput& out = outputs[i];
    if (inner[i] == nullptr) continue;
    add_low_rank(out.layer.weight->low_rank, inner[i], n_tokens, out.layer.outputs(), out.y, out.y_stride);
  }
}

void Norm::apply(const float* x, size_t n_rows, size_t stride, float* y) const {
  const kernels::VectorOps& ops = kernels::vector_ops();
  parallel_for(n_rows, std::max<size_t>(1, 16384 / std::max<size_t>(1, size)), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      if (kind == Kind::kRms) {
        ops.rms_norm(x + r * stride, weight, eps, size, y + r * stride);
      } else {
        ops.layer_norm(x + r * stride, weight, bias, eps, size, y + r * stride);
      }
    }
  });
}

void add_to(const float* x, size_t n, float* y) {
  parallel_for(n, 16384, [&](size_t begin, size_t end) {
    kernels::vector_ops().add(y + begin, x + begin, end - begin, y + begin);
  });
}

}  // namespace mneme
