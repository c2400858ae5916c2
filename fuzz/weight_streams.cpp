// Streams of weights: a DF11 or DF12 matrix whose shape and bytes come from the input must be refused or decode without
// leaving its bytes.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/matmul.h"
#include "tensor/weight_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mneme;
  if (size < 3 + kStreamHead) return 0;
  const DType dtype = data[0] % 2 == 0 ? DType::kDf11 : DType::kDf12;
  const Shape shape{uint64_t{1} + data[1] % 40, 4 * (uint64_t{1} + data[2])};
  std::vector<std::byte> bytes(size - 3);  // of its own, so that a read beyond the end is seen
  std::memcpy(bytes.data(), data + 3, bytes.size());
  try {
    const uint64_t stored = stream_size(dtype, bytes, "fuzz");
    const TensorView view{dtype, shape, bytes.data(), stored};
    if (!weight_format(dtype).misfit(shape).empty()) return 0;
    weight_format(dtype).validate(view, "fuzz");
    std::vector<float> values(view.rows() * view.columns());
    weight_format(dtype).decode_tile(view, {0, view.rows(), 0, view.columns()}, values.data(), view.columns());
    Ledger ledger;
    kernels::MatmulInput input(ledger);
    const std::vector<float> x(view.columns(), 0.5f);
    std::vector<float> y(view.rows());
    input.set(x.data(), 1, x.size());
    kernels::matmul(kernels::Matrix::from(view), input, nullptr, y.data(), y.size());
  } catch (const Error&) {
  }
  return 0;
}
