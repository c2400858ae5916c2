#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include "tensor/tensor.h"

namespace mneme {
namespace {

TEST(DType, TableIsOrderedAndFindsByIdAndName) {
  uint32_t last = 0;
  for (const DTypeInfo& info : all_dtypes()) {
    const auto id = static_cast<uint32_t>(info.dtype);
    EXPECT_GE(id, last);
    last = id;
    EXPECT_EQ(find_dtype(id), &info);
    EXPECT_EQ(find_dtype(info.name), &info);
  }
  EXPECT_EQ(find_dtype("q4_k")->dtype, DType::kQ4_K);
  EXPECT_EQ(find_dtype(uint32_t{4}), nullptr);
  EXPECT_EQ(find_dtype(uint32_t{1000}), nullptr);
  EXPECT_EQ(row_bytes(DType::kQ4_K, 2048), 1152u);
}

TEST(Shape, OuterAndInnerExtents) {
  Shape shape{3, 5};
  shape.push_outer(2);
  EXPECT_EQ(shape.to_string(), "[2, 3, 5]");
  EXPECT_EQ(shape.elements(), 30u);
  EXPECT_EQ(shape.from_last(0), 5u);
  EXPECT_EQ(shape.from_last(3), 1u);
}

}  // namespace
}  // namespace mneme
