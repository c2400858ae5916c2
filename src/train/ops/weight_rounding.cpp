#include "train/ops/weight_rounding.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "train/ops/ternary.h"
#include "weights/quantize.h"

namespace mneme::train {
WeightRounding WeightRounding::parse(std::string_view name) {
  if (name == "ternary") return {Kind::kTernary, DType::kTQ2_0, {}, 128, false};
  if (const DTypeInfo* type = find_dtype(name)) {
    if (type->encode == nullptr) {
      fail(ErrorCode::kInvalidArgument, "[quantization] expected a type that can be written, found {}", type->name);
    }
    return {Kind::kStored, type->dtype, {}, 128, false};
  }
  try {
    return {Kind::kFloat, DType::kF32, parse_small_float(name), 128, false};
  } catch (const Error&) {
    fail(ErrorCode::kInvalidArgument,
         "[quantization] expected ternary, a type such as Q4_0 or a small float such as E2M1, found {}", name);
  }
}

std::string WeightRounding::name() const {
  switch (kind) {
    case Kind::kNone:
      break;
    case Kind::kStored:
      return std::string(dtype_info(dtype).name);
    case Kind::kTernary:
      return "ternary";
    case Kind::kFloat:
      return format.name();
  }
  return {};
}

DType WeightRounding::type_for(size_t columns) const {
  if (kind == Kind::kStored) return fit_shape(dtype, {columns});
  const size_t multiple = kind == Kind::kTernary ? dtype_info(dtype).block_elements : 1;
  if (columns % multiple == 0) return dtype;
  fail(ErrorCode::kInvalidArgument, "[quantization] expected rows of a multiple of {} for {}, found {}", multiple,
       name(), columns);
}

void WeightRounding::apply(const float* w, size_t rows, size_t columns, float* out) const {
  if (kind == Kind::kTernary) {
    const float scale = ternary_codes(w, rows, columns, out);
    parallel_for(rows * columns, 16384, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) out[i] *= scale;
    });
    return;
  }
  const DType stored_type = type_for(columns);
  const DTypeInfo& type = dtype_info(stored_type);
  parallel_for(rows, std::max<size_t>(1, 4096 / columns), [&](size_t begin, size_t end) {
    if (kind == Kind::kFloat) {
      const std::span values(out + begin * columns, (end - begin) * columns);
      std::copy_n(w + begin * columns, values.size(), values.data());
      round_blocks(format, block, false, values, end - begin, columns);
      return;
    }
    std::vector<std::byte> stored(row_bytes(stored_type, columns));
    for (size_t i = begin; i < end; ++i) {
      type.encode(w + i * columns, nullptr, stored.data(), columns);
      type.decode(stored.data(), out + i * columns, columns);
    }
  });
}

}  // namespace mneme::train
