#include "recall/index/vector_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/checked_math.h"
#include "base/error.h"
#include "kernels/vector_distance.h"
#include "kernels/vector_ops.h"

namespace mneme::ann {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"f32", "f16", "i8"};

size_t element_bytes(VectorType type, size_t dimension) {
  switch (type) {
    case VectorType::kF32:
      return 4 * dimension;
    case VectorType::kF16:
      return round_up<size_t>(2 * dimension, 4);
    case VectorType::kI8:
      break;
  }
  return 4 + round_up<size_t>(dimension, 4);
}

float scale_of(const std::byte* element) {
  float scale;
  std::memcpy(&scale, element, sizeof scale);
  return scale;
}

}  // namespace

std::string_view vector_type_name(VectorType type) {
  return kNames[static_cast<size_t>(type)];
}

VectorType parse_vector_type(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) fail(ErrorCode::kInvalidArgument, "[values] expected f32, f16 or i8, found '{}'", name);
  return static_cast<VectorType>(found - kNames.begin());
}

VectorCodec::VectorCodec(VectorType type, size_t dimension)
    : type_(type), dimension_(dimension), bytes_(element_bytes(type, dimension)) {}

void VectorCodec::encode(std::span<const float> row, std::byte* out) const {
  switch (type_) {
    case VectorType::kF32:
      std::memcpy(out, row.data(), row.size_bytes());
      return;
    case VectorType::kF16:
      kernels::vector_ops().f32_to_f16(row.data(), row.size(), out);
      return;
    case VectorType::kI8:
      break;
  }
  float most = 0;
  for (float x : row) most = std::max(most, std::abs(x));
  const float scale = most / 127, inverse = scale > 0 ? 1 / scale : 0;
  std::memcpy(out, &scale, sizeof scale);
  for (size_t i = 0; i < row.size(); ++i) {
    const float code = std::clamp(std::nearbyint(row[i] * inverse), -127.0f, 127.0f);
    out[4 + i] = static_cast<std::byte>(static_cast<int8_t>(code));
  }
}

void VectorCodec::decode(const std::byte* element, std::span<float> row) const {
  switch (type_) {
    case VectorType::kF32:
      std::memcpy(row.data(), element, row.size_bytes());
      return;
    case VectorType::kF16:
      kernels::vector_ops().f16_to_f32(element, row.size(), row.data());
      return;
    case VectorType::kI8:
      break;
  }
  const float scale = scale_of(element);
  for (size_t i = 0; i < row.size(); ++i) row[i] = scale * static_cast<float>(static_cast<int8_t>(element[4 + i]));
}

float VectorCodec::distance(const float* query, const std::byte* element) const {
  const kernels::DistanceOps& ops = kernels::distance_ops();
  switch (type_) {
    case VectorType::kF32:
      return ops.l2_f32(query, reinterpret_cast<const float*>(element), dimension_);
    case VectorType::kF16:
      return ops.l2_f16(query, element, dimension_);
    case VectorType::kI8:
      break;
  }
  return ops.l2_i8(query, reinterpret_cast<const int8_t*>(element + 4), scale_of(element), dimension_);
}

}  // namespace mneme::ann
