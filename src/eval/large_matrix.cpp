#include "eval/large_matrix.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <vector>

#include "base/philox.h"
#include "tensor/weight_format.h"

namespace mneme {
namespace {

constexpr size_t kRepeat = 16;
constexpr double kLeastSeconds = 0.2;  ///< Fewer would measure what the scheduler does at first.

std::vector<float> normal(size_t n, uint64_t seed, float deviation) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = deviation * random.next_normal();
  return out;
}

}  // namespace

LargeMatrix::LargeMatrix(DType dtype, size_t rows, size_t columns, int plane_bits) {
  const std::vector<float> values = normal(kRepeat * columns, 11, 0.02f);
  const DType plain_type = is_stream(dtype) ? DType::kBF16 : dtype;
  std::vector<std::byte> piece(kRepeat * row_bytes(plain_type, columns));
  dtype_info(plain_type).encode(values.data(), nullptr, piece.data(), values.size());
  Buffer plain(ledger_, Tag::kWeights, rows / kRepeat * piece.size(), "rows");
  for (size_t i = 0; i < rows / kRepeat; ++i) std::memcpy(plain.data() + i * piece.size(), piece.data(), piece.size());
  const TensorView view{plain_type, Shape{rows, columns}, plain.data()};
  if (is_stream(dtype)) {
    const auto encoder = weight_format(dtype).encoder(view);
    bytes_ = encoder->bytes();
    memory_ = Buffer(ledger_, Tag::kWeights, bytes_, "stream");
    size_t at = 0;
    encoder->write(view, [&](std::span<const std::byte> part) {
      std::memcpy(memory_.data() + at, part.data(), part.size());
      at += part.size();
    });
    matrix_ = {dtype, kernels::Layout::kPlain, rows, columns, memory_.data(), 0};
    return;
  }
  const kernels::Matrix stored = kernels::Matrix::from(view);
  bytes_ = kernels::packed_bytes(dtype, rows, columns);
  if (bytes_ == 0) {  // a type whose products read it as it is stored
    bytes_ = plain.size();
    memory_ = std::move(plain);
    matrix_ = stored;
    return;
  }
  memory_ = Buffer(ledger_, Tag::kWeights, bytes_, "packed");
  matrix_ = plane_bits > 0 ? kernels::pack_bit_planes(stored, plane_bits, memory_.data())
                           : kernels::pack_matrix(stored, memory_.data());
}

double LargeMatrix::seconds(size_t n_tokens) {
  const std::vector<float> x = normal(n_tokens * matrix_.columns, 12, 1.0f);
  std::vector<float> y(n_tokens * matrix_.rows);
  kernels::MatmulInput input(ledger_);
  std::vector<double> times;
  double sum = 0;
  for (int i = 0; i < 6 || sum < kLeastSeconds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    input.set(x.data(), n_tokens, matrix_.columns);
    kernels::matmul(matrix_, input, nullptr, y.data(), matrix_.rows);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    sum += times.back();
  }
  std::sort(times.begin() + 1, times.end());  // the first one warms up
  return times[times.size() / 2];
}

}  // namespace mneme
