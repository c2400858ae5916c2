#include "base/byte_size.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace mneme {
namespace {

TEST(ByteSize, ParsesUnits) {
  EXPECT_EQ(parse_byte_size("4096"), 4096u);
  EXPECT_EQ(parse_byte_size("512K"), 512u << 10);
  EXPECT_EQ(parse_byte_size("1.5G"), 3ull << 29);
  EXPECT_EQ(parse_byte_size("2GiB"), 2ull << 30);
  EXPECT_EQ(parse_byte_size("2GB"), 2ull << 30);
  EXPECT_EQ(parse_byte_size("17B"), 17u);
  EXPECT_EQ(parse_token_count("32k"), 32768u);
}

TEST(ByteSize, RejectsNonsense) {
  for (const char* text : {"", "G", "-1", "12Q", "1GG", "nan", "1e400", "99999999T", "4 G", "1BB"}) {
    EXPECT_THROW(parse_byte_size(text), Error) << text;
  }
  EXPECT_THROW(parse_token_count("12B"), Error);
}

TEST(ByteSize, Formats) {
  EXPECT_EQ(format_byte_size(17), "17 B");
  EXPECT_EQ(format_byte_size(3ull << 29), "1.50 GiB");
  EXPECT_EQ(format_byte_size(1023 * 1024 + 1000), "1.00 MiB");
  EXPECT_EQ(format_byte_size(312ull << 20), "312 MiB");
}

}  // namespace
}  // namespace mneme
