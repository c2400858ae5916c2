#include "model/tokenizer/unigram_encoder.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace mneme {
namespace {

constexpr float kUnknownPenalty = 10.0f;
constexpr TokenId kUnknown = -1;

/// The best way to cover the text up to a position: its last piece, where that begins, and the sum of scores.
struct Best {
  TokenId id = kUnknown;
  uint32_t begin = 0;
  double score = -std::numeric_limits<double>::infinity();
};

}  // namespace

UnigramEncoder::UnigramEncoder(const TokenTable& table, UnigramRules rules, std::string_view charsmap,
                               std::optional<TokenId> unk)
    : table_(table), rules_(rules), charsmap_(charsmap), unk_(unk) {
  std::vector<PrefixTree::Entry> entries;
  float lowest = std::numeric_limits<float>::max();
  for (size_t i = 0; i < table.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (table.kind(id) == TokenKind::kNormal) lowest = std::min(lowest, table.score(id));
    if (table.is_plain(id)) entries.push_back({table.text(id), id});
  }
  unknown_score_ = lowest - kUnknownPenalty;
  tree_ = PrefixTree(std::move(entries));
}

std::string UnigramEncoder::normalize(std::string_view raw) const {
  std::string mapped;
  charsmap_.normalize(raw, mapped);
  std::string_view text = mapped;
  if (rules_.remove_extra_whitespaces) {
    const size_t first = std::min(text.find_first_not_of(' '), text.size());
    text.remove_prefix(first);
    text = text.substr(0, text.find_last_not_of(' ') + 1);
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2 + kSpaceMark.size());
  if (rules_.add_space_prefix) out += kSpaceMark;
  bool after_space = false;
  for (const char c : text) {
    if (c != ' ') {
      out += c;
    } else if (!rules_.remove_extra_whitespaces || !after_space) {
      out += kSpaceMark;
    }
    after_space = c == ' ';
  }
  return out;
}

size_t UnigramEncoder::encode(std::string_view raw, std::vector<TokenId>& out) const {
  const std::string text = normalize(raw);
  if (text.size() >= std::numeric_limits<uint32_t>::max()) {
    fail(ErrorCode::kInvalidArgument, "[tokenize] {} bytes of normalised text, at most 2^32", text.size());
  }
  std::vector<Best> best(text.size() + 1);
  best[0].score = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t character = decode_utf8(std::string_view(text).substr(begin)).length;
    const double so_far = best[begin].score;
    const auto offer = [&](size_t end, TokenId id, float score) {
      const double sum = so_far + score;
      if (sum > best[end].score) best[end] = {id, static_cast<uint32_t>(begin), sum};
    };
    bool covered = false;
    tree_.for_each_prefix(std::string_view(text).substr(begin), [&](size_t length, int32_t id) {
      covered |= length == character;
      offer(begin + length, id, table_.kind(id) == TokenKind::kUserDefined ? 0.0f : table_.score(id));
    });
    if (!covered) offer(begin + character, kUnknown, unknown_score_);
    begin += character;
  }

  const size_t n_before = out.size();
  size_t dropped = 0;
  bool after_unknown = false;
  for (size_t end = text.size(); end > 0; end = best[end].begin) {
    const bool unknown = best[end].id == kUnknown;
    if (!unknown) {
      out.push_back(best[end].id);
    } else if (!unk_) {
      dropped += end - best[end].begin;
    } else if (!after_unknown) {
      out.push_back(*unk_);
    }
    after_unknown = unknown;
  }
  std::reverse(out.begin() + static_cast<std::ptrdiff_t>(n_before), out.end());
  return dropped;
}

}  // namespace mneme
