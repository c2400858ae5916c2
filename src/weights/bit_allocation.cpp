#include "weights/bit_allocation.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace mneme {

std::vector<size_t> allocate_bits(std::span<const std::vector<TypeChoice>> tensors, uint64_t budget, size_t steps) {
  // Every tensor takes its smallest choice for sure; what is shared out in parts is the rest.
  uint64_t least = 0;
  std::vector<uint64_t> smallest;
  for (const auto& choices : tensors) {
    assert(!choices.empty());
    uint64_t bytes = choices.front().bytes;
    for (const TypeChoice& choice : choices) bytes = std::min(bytes, choice.bytes);
    smallest.push_back(bytes);
    least += bytes;
  }
  if (least > budget) return {};
  const uint64_t rest = budget - least;
  const uint64_t part = std::max<uint64_t>(1, (rest + steps - 1) / std::max<size_t>(1, steps));
  const size_t n_parts = static_cast<size_t>(rest / part);
  std::vector<double> loss(n_parts + 1, 0.0), next(n_parts + 1);
  std::vector<std::vector<uint8_t>> taken(tensors.size(), std::vector<uint8_t>(n_parts + 1));
  for (size_t t = 0; t < tensors.size(); ++t) {
    std::fill(next.begin(), next.end(), std::numeric_limits<double>::infinity());
    for (size_t c = 0; c < tensors[t].size(); ++c) {
      const uint64_t more = (tensors[t][c].bytes - smallest[t] + part - 1) / part;
      for (size_t p = more; p <= n_parts; ++p) {
        const double total = loss[p - more] + tensors[t][c].loss;
        if (total < next[p]) {
          next[p] = total;
          taken[t][p] = static_cast<uint8_t>(c);
        }
      }
    }
    std::swap(loss, next);
  }
  std::vector<size_t> out(tensors.size());
  size_t p = n_parts;
  for (size_t t = tensors.size(); t-- > 0;) {
    out[t] = taken[t][p];
    p -= static_cast<size_t>((tensors[t][out[t]].bytes - smallest[t] + part - 1) / part);
  }
  return out;
}

}  // namespace mneme
