#include <gtest/gtest.h>
TEST(IntegerModel, Placeholder) {}
