#include "engine/stop_strings.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"

namespace mneme {
namespace {

struct Output {
  std::string text;
  std::string found;
};

/// Pushes `text` in the given pieces.
Output run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopStrings matcher(stops);
  Output out;
  for (const std::string& piece : pieces) {
    out.text += matcher.push(piece);
    if (matcher.stopped()) break;
  }
  out.text += matcher.finish();
  if (matcher.stopped()) out.found = matcher.found();
  return out;
}

TEST(StopStrings, PassesTextWithoutStopStrings) {
  StopStrings matcher;
  EXPECT_EQ(matcher.push("hello "), "hello ");
  EXPECT_EQ(matcher.push("world"), "world");
  EXPECT_EQ(matcher.finish(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopStrings, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopStrings matcher({"User:"});
  EXPECT_EQ(matcher.push("Hi Us"), "Hi ");
  EXPECT_EQ(matcher.n_held(), 2u);
  EXPECT_EQ(matcher.push("e"), "");
  EXPECT_EQ(matcher.push("ful"), "Useful");
  EXPECT_EQ(matcher.push(" Use"), " ");
  EXPECT_EQ(matcher.push("r: secret"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.found(), "User:");
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopStrings, FinishFlushesHeldText) {
  StopStrings matcher({"###"});
  EXPECT_EQ(matcher.push("a##"), "a");
  EXPECT_EQ(matcher.finish(), "##");
}

TEST(StopStrings, OverlappingStopStrings) {
  EXPECT_EQ(run({"abcd", "bc"}, {"xab", "cd"}).text, "xa");    // "bc" ends first
  EXPECT_EQ(run({"bc", "abc"}, {"xa", "b", "c"}).text, "x");   // both end here: the longer one
  EXPECT_EQ(run({"aab"}, {"aa", "aa", "b!"}).text, "aa");      // falls back inside a repeated prefix
  EXPECT_EQ(run({"abab", "babc"}, {"ab", "abc"}).found, "abab");
}

TEST(StopStrings, SplitCharactersComeOutWhole) {
  const std::string emoji = "\xF0\x9F\x98\x80";
  StopStrings matcher({"\xF0\x9F\x98\x81"});  // shares three bytes with the emoji
  EXPECT_EQ(matcher.push("a"), "a");
  EXPECT_EQ(matcher.push(emoji.substr(0, 2)), "");
  EXPECT_EQ(matcher.push(emoji.substr(2, 1)), "");
  EXPECT_EQ(matcher.push(emoji.substr(3)), emoji);
  EXPECT_EQ(matcher.push("\xC3"), "");
  EXPECT_EQ(matcher.finish(), "\xEF\xBF\xBD");
}

TEST(StopStrings, RefusesBadStopStrings) {
  EXPECT_THROW(StopStrings({"ok", ""}), Error);
  EXPECT_THROW(StopStrings({"\xFF"}), Error);
  EXPECT_THROW(StopStrings({std::string(StopStrings::kMaxBytes + 1, 'a')}), Error);
}

/// The first end of a stop string decides; of those that end there, the longest.
Output brute_force(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* best = nullptr;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop) && (best == nullptr || stop.size() > best->size())) {
        best = &stop;
      }
    }
    if (best != nullptr) return {text.substr(0, end - best->size()), *best};
  }
  return {text, {}};
}

TEST(StopStrings, EqualsBruteForceForAnySplit) {
  PhiloxStream random(11);
  const auto word = [&](size_t longest) {
    std::string out;
    for (uint64_t n = 1 + random.next_below(longest); n > 0; --n) out += "ab"[random.next_below(2)];
    return out;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t n = random.next_below(4); n > 0; --n) stops.push_back(word(5));
    const std::string text = word(24);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random.next_below(4);
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    const Output expected = brute_force(stops, text), found = run(stops, pieces);
    ASSERT_EQ(found.text, expected.text) << text;
    ASSERT_EQ(found.found, expected.found) << text;
  }
}

}  // namespace
}  // namespace mneme
