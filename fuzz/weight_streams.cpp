// Streams of weights: a DF11, DF12, BITSTACK or AQLM matrix whose shape and bytes come from the input must be refused or
// decode without leaving its bytes. The blocks of a BITSTACK matrix follow its directory.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/matmul.h"
#include "tensor/bitstack.h"
#include "tensor/weight_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mneme;
  if (size < 3 + kStreamHead) return 0;
  constexpr DType kTypes[] = {DType::kDf11, DType::kDf12, DType::kBitStack, DType::kAqlm};
  const DType dtype = kTypes[data[0] % 4];
  const Shape shape{uint64_t{1} + data[1] % 40, 4 * (uint64_t{1} + data[2])};
  std::vector<std::byte> bytes(size - 3);  // of its own, so that a read beyond the end is seen
  std::memcpy(bytes.data(), data + 3, bytes.size());
  try {
    const uint64_t stored = stream_size(dtype, bytes, "fuzz");
    TensorView view{dtype, shape, bytes.data(), stored};
    if (!weight_format(dtype).misfit(shape).empty()) return 0;
    weight_format(dtype).validate(view, "fuzz");
    bitstack::BlockList list;
    if (dtype == DType::kBitStack) {
      const bitstack::BlockLayout layout{view.rows(), view.columns(), bitstack::directory_vectors(view)};
      list.vectors = bitstack::directory_vectors(view);
      list.base = bytes.data() + stored;
      for (const bitstack::Entry& entry : bitstack::directory_entries(view)) {
        if (entry.place + layout.bytes() <= bytes.size() - stored) list.offsets.push_back(entry.place);
      }
      list.n_blocks = static_cast<uint32_t>(list.offsets.size());
      view.blocks = &list;
    }
    std::vector<float> values(view.rows() * view.columns());
    weight_format(dtype).decode_tile(view, {0, view.rows(), 0, view.columns()}, values.data(), view.columns());
    Ledger ledger;
    kernels::MatmulInput input(ledger);
    const std::vector<float> x(5 * view.columns(), 0.5f);
    std::vector<float> y(5 * view.rows());
    for (size_t n_tokens : {1, 5}) {  // few and many tokens may multiply in different ways
      input.set(x.data(), n_tokens, view.columns());
      kernels::matmul(kernels::Matrix::from(view), input, nullptr, y.data(), view.rows());
    }
  } catch (const Error&) {
  }
  return 0;
}
