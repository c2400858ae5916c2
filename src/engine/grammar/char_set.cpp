#include "engine/grammar/char_set.h"

#include <algorithm>

namespace mneme {
namespace {

constexpr CharRange kSurrogates{0xD800, 0xDFFF};

/// Ascending, merged where they touch or overlap.
std::vector<CharRange> merged(std::vector<CharRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<CharRange> out;
  for (const CharRange& r : ranges) {
    if (!out.empty() && r.first <= out.back().last + 1) {
      out.back().last = std::max(out.back().last, r.last);
    } else {
      out.push_back(r);
    }
  }
  return out;
}

void add_without_surrogates(const CharRange& r, std::vector<CharRange>& out) {
  if (r.first < kSurrogates.first) out.push_back({r.first, std::min(r.last, kSurrogates.first - 1)});
  if (r.last > kSurrogates.last) out.push_back({std::max(r.first, kSurrogates.last + 1), r.last});
}

}  // namespace

CharSet::CharSet(std::vector<CharRange> ranges) {
  for (const CharRange& r : merged(std::move(ranges))) add_without_surrogates(r, ranges_);
}

bool CharSet::contains(uint32_t code_point) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                                      [](uint32_t c, const CharRange& r) { return c < r.first; });
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

CharSet CharSet::complement() const {
  std::vector<CharRange> out;
  uint32_t next = 0;
  for (const CharRange& r : ranges_) {
    if (r.first > next) out.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= kLargest) out.push_back({next, kLargest});
  return CharSet(std::move(out));
}

CharSet CharSet::intersection(const CharSet& other) const {
  std::vector<CharRange> out;
  for (auto a = ranges_.begin(), b = other.ranges_.begin(); a != ranges_.end() && b != other.ranges_.end();) {
    const uint32_t first = std::max(a->first, b->first), last = std::min(a->last, b->last);
    if (first <= last) out.push_back({first, last});
    a->last < b->last ? ++a : ++b;
  }
  return CharSet(std::move(out));
}

CharSet CharSet::united(const CharSet& other) const {
  std::vector<CharRange> out = ranges_;
  out.insert(out.end(), other.ranges_.begin(), other.ranges_.end());
  return CharSet(std::move(out));
}

}  // namespace mneme
