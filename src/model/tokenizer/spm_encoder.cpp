#include "model/tokenizer/spm_encoder.h"

#include <bit>
#include <unordered_map>
#include <utility>

#include "base/utf8.h"

namespace mneme {
namespace {

/// Maps scores to priorities that sort the other way: the higher score has the lower value.
uint32_t priority_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // The sum turns -0 into 0.
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

/// For each unused piece that came up: the two texts it was merged from.
using Splits = std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>>;

}  // namespace

std::string mark_spaces(std::string_view text, bool prefix) {
  std::string marked;
  marked.reserve(text.size() + text.size() / 2 + kSpaceMark.size());
  if (prefix) marked += kSpaceMark;
  for (const char c : text) {
    if (c == ' ') {
      marked += kSpaceMark;
    } else {
      marked += c;
    }
  }
  return marked;
}

std::array<TokenId, 256> find_byte_tokens(const TokenTable& table, std::optional<TokenId> unk) {
  std::array<TokenId, 256> tokens{};
  for (size_t b = 0; b < tokens.size(); ++b) {
    auto id = table.find(byte_token_text(static_cast<unsigned char>(b)));
    const char byte = static_cast<char>(b);
    if (!id || (table.kind(*id) != TokenKind::kByte && !table.is_plain(*id))) id = table.find_plain({&byte, 1});
    tokens[b] = id ? *id : unk.value_or(-1);
  }
  return tokens;
}

SpmEncoder::SpmEncoder(const TokenTable& table, bool add_space_prefix, std::optional<TokenId> unk)
    : table_(table), add_space_prefix_(add_space_prefix), byte_tokens_(find_byte_tokens(table, unk)) {}

size_t SpmEncoder::encode(std::string_view raw, std::vector<TokenId>& out) const {
  const std::string text = mark_spaces(raw, add_space_prefix_);
  const std::string_view view = text;
  MergeQueue queue;
  for (size_t i = 0; i < text.size();) {
    const size_t end = i + decode_utf8(view.substr(i)).length;
    queue.add(static_cast<uint32_t>(i), static_cast<uint32_t>(end), -1);
    i = end;
  }
  Splits splits;
  queue.run([&](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<Merge> {
    const std::string_view piece = view.substr(left.begin, right.end - left.begin);
    const auto id = table_.find_plain(piece);
    if (!id) return std::nullopt;
    if (table_.kind(*id) == TokenKind::kUnused) {
      splits[piece] = {view.substr(left.begin, left.end - left.begin),
                       view.substr(right.begin, right.end - right.begin)};
    }
    return Merge{priority_of(table_.score(*id)), *id};
  });

  size_t dropped = 0;
  std::vector<std::string_view> pending;
  for (int32_t i = queue.symbols.empty() ? -1 : 0; i >= 0; i = queue.symbols[i].next) {
    const MergeSymbol& symbol = queue.symbols[i];
    pending.push_back(view.substr(symbol.begin, symbol.end - symbol.begin));
    while (!pending.empty()) {
      const std::string_view piece = pending.back();
      pending.pop_back();
      const auto id = table_.find_plain(piece);
      if (id && table_.kind(*id) == TokenKind::kUnused) {
        if (const auto split = splits.find(piece); split != splits.end()) {
          pending.push_back(split->second.second);
          pending.push_back(split->second.first);
          continue;
        }
      }
      if (id) {
        out.push_back(*id);
        continue;
      }
      for (const char c : piece) {
        const TokenId byte_token = byte_tokens_[static_cast<unsigned char>(c)];
        if (byte_token >= 0) {
          out.push_back(byte_token);
        } else {
          ++dropped;
        }
      }
    }
  }
  return dropped;
}

}  // namespace mneme
