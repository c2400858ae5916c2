#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "kernels/matmul.h"
#include "tensor/dtype.h"

/// Weights and activations for tests of products, and what their product should be.
namespace mneme::kernels {

/// Reproducible numbers: a 64-bit linear congruential generator (Knuth's MMIX constants).
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed) {}
  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }
  /// Uniform in [-1, 1).
  float real() { return static_cast<float>(static_cast<int32_t>(bits())) * 0x1p-31f; }

 private:
  uint64_t state_;
};

/// Byte offsets of the f16 fields of a block: scales that must stay sane among otherwise random bytes.
inline std::vector<size_t> half_fields(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kBitMod3:
    case DType::kBitMod4:
    case DType::kBipolar1:
    case DType::kBipolar2:
    case DType::kBipolar3:
    case DType::kBipolar4:
    case DType::kBipolar5:
    case DType::kBipolar6:
    case DType::kBipolar7:
    case DType::kBipolar8:
      return {0};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ1_0:
    case DType::kQ2_0:
      return {0};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    case DType::kTQ1_0:
      return {52};
    case DType::kTQ2_0:
      return {64};
    default:
      return {};
  }
}

/// A matrix whose codes are random bytes and whose scales lie in +-[2^-10, 2^-7].
struct TestMatrix {
  TestMatrix(DType dtype, size_t n_rows, size_t n_columns, uint64_t seed)
      : type(dtype), rows(n_rows), columns(n_columns) {
    const DTypeInfo& info = dtype_info(dtype);
    bytes.resize(rows * row_bytes(dtype, columns));
    TestRandom random(seed);
    if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16) {
      std::vector<float> values(rows * columns);
      for (float& value : values) value = random.real();
      info.encode(values.data(), nullptr, bytes.data(), values.size());
      return;
    }
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.bits() >> 24);
    for (size_t block = 0; block < bytes.size(); block += info.block_bytes) {
      for (size_t field : half_fields(dtype)) {
        const auto half = static_cast<uint16_t>((random.bits() & 0x8000u) | (0x1400u + random.bits() % 0xc00u));
        std::memcpy(bytes.data() + block + field, &half, sizeof half);
      }
      if (dtype == DType::kMXFP4) bytes[block] = static_cast<std::byte>(118 + random.bits() % 8);
      if (dtype == DType::kNVFP4 && block % 5 == 0) bytes[block] = std::byte{0x7f};  // reads as zero
    }
  }

  Matrix plain() const { return {type, Layout::kPlain, rows, columns, bytes.data()}; }

  std::vector<float> decoded() const {
    std::vector<float> values(rows * columns);
    dtype_info(type).decode(bytes.data(), values.data(), values.size());
    return values;
  }

  DType type;
  size_t rows, columns;
  std::vector<std::byte> bytes;
};

inline std::vector<float> test_activations(size_t n_tokens, size_t columns, uint64_t seed) {
  TestRandom random(seed);
  std::vector<float> x(n_tokens * columns);
  for (size_t i = 0; i < x.size(); ++i) {
    const float magnitude = std::exp2(static_cast<float>(i / 32 % 7) - 3.0f);  // blocks differ in size
    x[i] = magnitude * (random.real() + random.real() + random.real());
  }
  return x;
}

/// How the products of a type see their activations.
enum class TestForm { kInt8, kBf16, kExact };

inline TestForm form_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kTQ1_0:
    case DType::kTQ2_0:
    case DType::kMXFP4:
    case DType::kNVFP4:
    case DType::kQ1_0:
    case DType::kQ2_0:
    case DType::kBitMod3:
    case DType::kBitMod4:
    case DType::kBipolar1:
    case DType::kBipolar2:
    case DType::kBipolar3:
    case DType::kBipolar4:
    case DType::kBipolar5:
    case DType::kBipolar6:
    case DType::kBipolar7:
    case DType::kBipolar8:
      return TestForm::kInt8;
    case DType::kBF16:
      return TestForm::kBf16;
    default:
      return TestForm::kExact;
  }
}

/// Activations as a product of that form sees them: MXINT8 written out with library functions, or rounded to bf16.
/// `limit`: see Matrix::input_limit.
inline std::vector<double> seen_activations(const std::vector<float>& x, TestForm form, double limit = 0) {
  std::vector<double> seen(x.begin(), x.end());
  if (form == TestForm::kBf16) {
    for (double& value : seen) value = bf16_to_f32(f32_to_bf16(static_cast<float>(value)));
  }
  if (form == TestForm::kInt8) {
    for (size_t b = 0; b < seen.size(); b += 32) {
      double largest = 0;
      for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(seen[b + i]));
      if (limit > 0) {
        largest = limit;
        for (size_t i = 0; i < 32; ++i) seen[b + i] = std::clamp(seen[b + i], -limit, limit);
      }
      if (largest == 0) continue;
      const double scale = std::exp2(std::ceil(std::log2(largest / 127)));
      for (size_t i = 0; i < 32; ++i) seen[b + i] = scale * std::nearbyint(seen[b + i] / scale);
    }
  }
  return seen;
}

}  // namespace mneme::kernels
