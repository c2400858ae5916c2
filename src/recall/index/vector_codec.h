#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace mneme::ann {

/// How the vectors in posting lists are stored.
enum class VectorType : uint32_t {
  kF32 = 0,
  kF16 = 1,  ///< IEEE half precision
  kI8 = 2,   ///< f32 scale = max |x| / 127, then a signed byte for each value
};

/// "f32", "f16", "i8".
std::string_view vector_type_name(VectorType type);
/// The type of that name. Throws Error(kInvalidArgument).
VectorType parse_vector_type(std::string_view name);

/// Encodes rows of one dimension and compares them with f32 queries. Elements begin at multiples of 4 bytes.
class VectorCodec {
 public:
  VectorCodec(VectorType type, size_t dimension);

  VectorType type() const { return type_; }
  size_t dimension() const { return dimension_; }
  /// Bytes of one element, a multiple of 4.
  size_t bytes() const { return bytes_; }

  /// Encoding what decode() gave changes nothing.
  void encode(std::span<const float> row, std::byte* out) const;
  void decode(const std::byte* element, std::span<float> row) const;
  /// Squared Euclidean distance of query [dimension] to the element.
  float distance(const float* query, const std::byte* element) const;

 private:
  VectorType type_;
  size_t dimension_, bytes_;
};

}  // namespace mneme::ann
