#include <cstring>

#include "base/half.h"
#include "kernels/vector_distance_tables.h"

namespace mneme::kernels {
namespace {

double half_at(const void* halves, size_t i) {
  uint16_t bits;
  std::memcpy(&bits, static_cast<const std::byte*>(halves) + 2 * i, 2);
  return f16_to_f32(bits);
}

/// Sum of (a(i) - b(i))^2.
template <typename A, typename B>
float squares(size_t n, A a, B b) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += (a(i) - b(i)) * (a(i) - b(i));
  return static_cast<float>(sum);
}

float l2_f32(const float* a, const float* b, size_t n) {
  return squares(
      n, [=](size_t i) { return static_cast<double>(a[i]); }, [=](size_t i) { return static_cast<double>(b[i]); });
}

float l2_f16(const float* a, const void* b, size_t n) {
  return squares(
      n, [=](size_t i) { return static_cast<double>(a[i]); }, [=](size_t i) { return half_at(b, i); });
}

float l2_f16_f16(const void* a, const void* b, size_t n) {
  return squares(
      n, [=](size_t i) { return half_at(a, i); }, [=](size_t i) { return half_at(b, i); });
}

float l2_i8(const float* a, const int8_t* codes, float scale, size_t n) {
  return squares(
      n, [=](size_t i) { return static_cast<double>(a[i]); },
      [=](size_t i) { return static_cast<double>(scale) * codes[i]; });
}

}  // namespace

const DistanceOps& scalar_distance_ops() {
  static constexpr DistanceOps kTable = {
      .target = "scalar", .l2_f32 = l2_f32, .l2_f16 = l2_f16, .l2_f16_f16 = l2_f16_f16, .l2_i8 = l2_i8};
  return kTable;
}

}  // namespace mneme::kernels
