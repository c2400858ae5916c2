#include "base/utf8.h"

#include <gtest/gtest.h>

namespace mneme {
namespace {

TEST(Utf8, EveryCodePointRoundTrips) {
  for (uint32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 37) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Char decoded = decode_utf8(text);
    ASSERT_TRUE(decoded.valid) << c;
    ASSERT_EQ(decoded.code_point, c);
    ASSERT_EQ(decoded.length, text.size());
  }
}

TEST(Utf8, RejectsMalformedSequences) {
  for (std::string_view bad : {"\x80", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80",
                               "\xF4\x90\x80\x80", "\xE2\x82", "\xFF"}) {
    EXPECT_FALSE(is_valid_utf8(bad));
  }
  EXPECT_EQ(utf8_to_code_points("a\xFF"
                                "b"),
            (std::vector<uint32_t>{'a', 0xFFFD, 'b'}));
}

TEST(Utf8, ShortenedTextEndsBetweenCharacters) {
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(shortened("abcd", 3), "abc...");
  EXPECT_EQ(shortened("aé€", 3), "aé...");
  EXPECT_EQ(shortened("aé€", 5), "aé...");
  EXPECT_EQ(shortened("😀", 3), "...");
  EXPECT_EQ(shortened("", 0), "");
}

TEST(Utf8, StreamHoldsBackIncompleteCharacters) {
  const std::string text = "né€😀!";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Utf8Stream stream;
    std::string out = stream.push(text.substr(0, cut));
    EXPECT_TRUE(is_valid_utf8(out));
    out += stream.push(text.substr(cut));
    out += stream.finish();
    EXPECT_EQ(out, text);
  }
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.push("\xE2(x"), "\xEF\xBF\xBD(x");
}

}  // namespace
}  // namespace mneme
