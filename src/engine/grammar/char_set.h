#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace mneme {

/// Inclusive range of code points.
struct CharRange {
  uint32_t first, last;
  auto operator<=>(const CharRange&) const = default;
};

/// A set of Unicode code points without the surrogates, which UTF-8 cannot carry. Kept as ascending ranges with gaps
/// between them, so equal sets have equal ranges.
class CharSet {
 public:
  static constexpr uint32_t kLargest = 0x10FFFF;

  CharSet() = default;
  /// Union of any ranges (first <= last <= kLargest).
  explicit CharSet(std::vector<CharRange> ranges);
  static CharSet single(uint32_t code_point) { return CharSet({{code_point, code_point}}); }
  static CharSet all() { return CharSet({{0, kLargest}}); }

  const std::vector<CharRange>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool contains(uint32_t code_point) const;
  CharSet complement() const;
  CharSet intersection(const CharSet& other) const;
  CharSet united(const CharSet& other) const;

  auto operator<=>(const CharSet&) const = default;

 private:
  std::vector<CharRange> ranges_;
};

}  // namespace mneme
