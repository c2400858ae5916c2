#include "model/tokenizer/special_partition.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <string>

namespace mneme {
namespace {

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool inside_one(std::span<const TextRange> ranges, size_t begin, size_t end) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), begin,
                                      [](size_t value, const TextRange& range) { return value < range.begin; });
  return after != ranges.begin() && end <= (after - 1)->end;
}

bool names_phi3(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower.find("phi-3") != std::string::npos || lower.find("phi3") != std::string::npos;
}

}  // namespace

SpecialPartition::SpecialPartition(const TokenTable& table, std::string_view name, std::string_view pre) {
  const bool phi3 = names_phi3(name);
  const bool jina = pre == "jina-v2-de" || pre == "jina-v2-es" || pre == "jina-v2-code";
  for (size_t i = 0; i < table.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenKind kind = table.kind(id);
    if (kind != TokenKind::kControl && kind != TokenKind::kUserDefined && kind != TokenKind::kUnknown) continue;
    const std::string_view text = table.text(id);
    Special special{id, static_cast<uint32_t>(text.size()), 0, kind != TokenKind::kUserDefined};
    special.strip_left = jina && text == "<mask>";
    special.strip_right = phi3 && text != "<unk>" && text != "<s>" && text != "<|endoftext|>";
    specials_.push_back(special);
  }
  std::stable_sort(specials_.begin(), specials_.end(),
                   [](const Special& a, const Special& b) { return a.bytes > b.bytes; });
  std::vector<PrefixTree::Entry> entries;
  for (size_t i = 0; i < specials_.size(); ++i) {
    if (i == 0 || specials_[i].bytes != specials_[i - 1].bytes) ++n_lengths_;
    specials_[i].length_rank = static_cast<uint32_t>(n_lengths_ - 1);
    entries.push_back({table.text(specials_[i].id), static_cast<int32_t>(i)});
  }
  tree_ = PrefixTree(std::move(entries));
}

int32_t SpecialPartition::longest_at(std::string_view text, size_t begin, std::span<const TextRange> trusted,
                                     size_t below) const {
  int32_t best = -1;
  tree_.for_each_prefix(text.substr(begin, std::min(below - 1, text.size() - begin)), [&](size_t bytes, int32_t index) {
    if (!specials_[index].needs_trust || inside_one(trusted, begin, begin + bytes)) best = index;
  });
  return best;
}

std::vector<SpecialPartition::Match> SpecialPartition::find_matches(std::string_view text,
                                                                    std::span<const TextRange> trusted) const {
  // Each place holds one candidate at a time, the longest that has not lost yet, in the list of its length.
  std::vector<std::vector<Candidate>> by_length(n_lengths_);
  const auto add = [&](size_t begin, size_t below) {
    const int32_t index = longest_at(text, begin, trusted, below);
    if (index >= 0) by_length[specials_[index].length_rank].push_back({static_cast<uint32_t>(index), begin});
    return index >= 0;
  };
  bool any = false;
  for (size_t i = 0; i < text.size(); ++i) any |= add(i, std::numeric_limits<size_t>::max());
  if (!any) return {};

  std::vector<Match> matches;
  std::vector<bool> taken(text.size(), false);
  for (std::vector<Candidate>& candidates : by_length) {
    std::sort(candidates.begin(), candidates.end());
    for (const Candidate& candidate : candidates) {
      const Special& special = specials_[candidate.special];
      const TextRange spelling{candidate.begin, candidate.begin + special.bytes};
      if (taken[spelling.begin]) continue;
      // What was accepted before is at least as long, so an overlap covers one of the two ends.
      if (taken[spelling.end - 1]) {
        add(spelling.begin, special.bytes);
        continue;
      }
      TextRange swallowed = spelling;
      const auto is_free_space = [&](size_t i) { return !taken[i] && is_ascii_space(text[i]); };
      while (special.strip_left && swallowed.begin > 0 && is_free_space(swallowed.begin - 1)) --swallowed.begin;
      while (special.strip_right && swallowed.end < text.size() && is_free_space(swallowed.end)) ++swallowed.end;
      std::fill(taken.begin() + static_cast<ptrdiff_t>(swallowed.begin),
                taken.begin() + static_cast<ptrdiff_t>(swallowed.end), true);
      matches.push_back({special.id, spelling, swallowed});
    }
    candidates = {};
  }
  std::sort(matches.begin(), matches.end(),
            [](const Match& a, const Match& b) { return a.spelling.begin < b.spelling.begin; });
  return matches;
}

std::vector<Fragment> SpecialPartition::split(std::string_view text, std::span<const TextRange> trusted) const {
  std::vector<Fragment> fragments;
  size_t at = 0;
  const auto raw_until = [&](size_t end) {
    if (end > at) fragments.push_back({-1, {at, end}});
  };
  if (!tree_.empty()) {
    for (const Match& match : find_matches(text, trusted)) {
      raw_until(match.swallowed.begin);
      fragments.push_back({match.id, match.spelling});
      at = match.swallowed.end;
    }
  }
  raw_until(text.size());
  return fragments;
}

size_t SpecialPartition::memory_bytes() const {
  return specials_.capacity() * sizeof(Special) + tree_.memory_bytes();
}

}  // namespace mneme
