#include "weights/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "base/test_error.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Metadata, NumbersOfAnyWidthThatFit) {
  Metadata m("a.gguf");
  m.set_u32("n", 7);
  m.set_i32("negative", -1);
  m.set_f32("eps", 0.5f);
  m.set_u64("big", ~uint64_t{0});
  EXPECT_EQ(m.get_u64("n"), 7u);
  EXPECT_EQ(m.get_i64("n"), 7);
  EXPECT_EQ(m.get_f64("n"), 7.0);
  EXPECT_EQ(m.get_f64("eps"), 0.5);
  EXPECT_EQ(m.get_i64("negative"), -1);
  EXPECT_THAT(error_of([&] { (void)m.get_u64("negative"); }), HasSubstr("'negative'"));
  EXPECT_THAT(error_of([&] { (void)m.get_i64("big"); }), HasSubstr("'big'"));
  EXPECT_THAT(error_of([&] { (void)m.get_u64("eps"); }), HasSubstr("expected an integer, found f32, in a.gguf"));
}

TEST(Metadata, MissingKeys) {
  Metadata m("a.gguf");
  EXPECT_EQ(m.find_u64("x"), std::nullopt);
  EXPECT_EQ(m.find_array_string("x"), std::nullopt);
  EXPECT_FALSE(m.has("x"));
  try {
    (void)m.get_string("x");
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_THAT(e.what(), HasSubstr("'x'"));
  }
}

TEST(Metadata, WrongTypesNameTheKey) {
  Metadata m("a.gguf");
  m.set_string("s", "text");
  m.set_bool("b", true);
  m.set_array_i32("a", std::array{1, -2});
  EXPECT_THAT(error_of([&] { (void)m.find_u64("s"); }), HasSubstr("'s': expected an integer, found string"));
  EXPECT_THAT(error_of([&] { (void)m.find_u64("b"); }), HasSubstr("'b': expected an integer, found bool"));
  EXPECT_THAT(error_of([&] { (void)m.get_bool("s"); }), HasSubstr("'s': expected bool"));
  EXPECT_THAT(error_of([&] { (void)m.get_f64("a"); }), HasSubstr("found array of 2 i32"));
  EXPECT_THAT(error_of([&] { (void)m.find_array_u64("a"); }), HasSubstr("element 1"));
  EXPECT_THAT(error_of([&] { (void)m.find_array_string("a"); }), HasSubstr("'a': expected an array of string"));
  EXPECT_THAT(error_of([&] { (void)m.find_array_f32("s"); }), HasSubstr("'s': expected an array of numbers"));
}

TEST(Metadata, Arrays) {
  Metadata m;
  m.set_array_i32("i", std::array{1, 2, 3});
  m.set_array_f32("f", std::array{0.5f, -1.0f});
  m.set_array_string("s", std::array<std::string, 3>{"a", "", "bc"});
  m.set_array_bool("b", {true, false});
  m.set_array_u8("u", std::array{std::byte{9}});
  EXPECT_THAT(*m.find_array_u64("i"), ElementsAre(1u, 2u, 3u));
  EXPECT_THAT(*m.find_array_i32("i"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*m.find_array_f64("i"), ElementsAre(1.0, 2.0, 3.0));
  EXPECT_THAT(*m.find_array_f32("f"), ElementsAre(0.5f, -1.0f));
  EXPECT_THAT(*m.find_array_string("s"), ElementsAre("a", "", "bc"));
  EXPECT_THAT(*m.find_array_bool("b"), ElementsAre(true, false));
  EXPECT_EQ((*m.find_array_bytes("u"))[0], std::byte{9});
  EXPECT_TRUE(m.is_array("i"));
  EXPECT_EQ(m.find("s")->type_text(), "array of 3 string");
}

TEST(Metadata, OneNumberStandsForAllLayers) {
  Metadata m("a.gguf");
  m.set_u32("same", 8);
  m.set_array_i32("each", std::array{1, 2, 3});
  EXPECT_THAT(*m.find_u64_per_layer("same", 3), ElementsAre(8u, 8u, 8u));
  EXPECT_THAT(*m.find_u64_per_layer("each", 3), ElementsAre(1u, 2u, 3u));
  EXPECT_EQ(m.find_u64_per_layer("none", 3), std::nullopt);
  EXPECT_THAT(error_of([&] { (void)m.find_u64_per_layer("each", 4); }), HasSubstr("expected one number or 4, found 3"));
}

TEST(Metadata, CopiesShareOwnedValuesAndOrderIsKept) {
  Metadata copy;
  {
    Metadata m;
    m.set_string("z", "first");
    m.set_string("a", "second");
    m.set_array_string("list", std::array<std::string, 1>{"kept"});
    m.set_string("z", "replaced");
    copy = m;
  }
  ASSERT_EQ(copy.size(), 3u);
  EXPECT_EQ(copy.entries()[0].key, "z");
  EXPECT_EQ(copy.get_string("z"), "replaced");
  EXPECT_EQ((*copy.find_array_string("list"))[0], "kept");
  copy.erase("z");
  copy.erase("not there");
  EXPECT_FALSE(copy.has("z"));
  EXPECT_EQ(copy.get_string("a"), "second");
  EXPECT_EQ(copy.entries()[1].key, "list");
}

}  // namespace
}  // namespace mneme
