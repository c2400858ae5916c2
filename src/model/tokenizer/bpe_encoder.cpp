#include "model/tokenizer/bpe_encoder.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/spm_encoder.h"

namespace mneme {

MergeTable::MergeTable(const TokenTable& table, const std::vector<std::string>& merges) : table_(table) {
  if (merges.size() >= size_t{1} << 28)
    fail(ErrorCode::kUnsupported, "[tokenizer] {} merges, at most 2^28", merges.size());
  slots_.resize(merges.size() + merges.size() / 2 + 1);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ', 1);  // A part may begin with a space.
    if (merge.empty() || space == std::string_view::npos || space + 1 == merge.size()) {
      fail(ErrorCode::kCorruptData, "[tokenizer] expected two texts with a space between them, in merge {} of {}", rank,
           "tokenizer.ggml.merges");
    }
    const std::string_view left_text = merge.substr(0, space), right_text = merge.substr(space + 1);
    const int32_t left = symbol_or_new(left_text), right = symbol_or_new(right_text);
    size_t at = home(left, right);
    while (slots_[at].left >= 0 && (slots_[at].left != left || slots_[at].right != right))
      at = (at + 1) % slots_.size();
    if (slots_[at].left >= 0) continue;  // The first of equal merges counts.
    slots_[at] = {left, right, static_cast<uint32_t>(rank), symbol_or_new(std::string(left_text).append(right_text))};
  }
}

size_t MergeTable::home(int32_t left, int32_t right) const {
  const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  uint64_t hash = key * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  hash *= 0xD6E8FEB86659FD93u;
  return static_cast<size_t>(((hash >> 32) * slots_.size()) >> 32);
}

std::optional<Merge> MergeTable::find(int32_t left, int32_t right) const {
  for (size_t at = home(left, right); slots_[at].left >= 0; at = at + 1 == slots_.size() ? 0 : at + 1) {
    const Slot& slot = slots_[at];
    if (slot.left == left && slot.right == right) return Merge{slot.rank, slot.merged};
  }
  return std::nullopt;
}

int32_t MergeTable::symbol(std::string_view text) const {
  if (const auto id = table_.find(text)) return *id;
  const auto extra = extra_.find(text);
  return extra == extra_.end() ? -1 : extra->second;
}

int32_t MergeTable::symbol_or_new(std::string_view text) {
  const int32_t known = symbol(text);
  if (known >= 0) return known;
  return extra_.emplace(text, static_cast<int32_t>(table_.size() + extra_.size())).first->second;
}

size_t MergeTable::memory_bytes() const {
  size_t bytes = slots_.capacity() * sizeof(Slot);
  for (const auto& [text, symbol] : extra_) bytes += sizeof(std::string) + text.capacity() + 4 * sizeof(void*);
  return bytes;
}

BpeEncoder::BpeEncoder(const TokenTable& table, const PreTokenizer& rules, const std::vector<std::string>& merges)
    : table_(table), rules_(rules), merges_(table, merges), byte_symbols_(find_byte_tokens(table, std::nullopt)) {
  for (size_t b = 0; b < byte_symbols_.size(); ++b) {
    const char byte = static_cast<char>(b);
    if (!rules.spaces_marked) byte_symbols_[b] = merges_.symbol(bytes_to_text({&byte, 1}));
    all_bytes_ &= has_token(static_cast<unsigned char>(b));
  }
}

bool BpeEncoder::is_token(int32_t symbol) const {
  if (!table_.contains(symbol)) return false;
  const TokenKind kind = table_.kind(symbol);
  // The texts of user-defined tokens are not spelled with mapped bytes.
  return kind == TokenKind::kNormal || kind == TokenKind::kUnused ||
         (kind == TokenKind::kUserDefined && rules_.spaces_marked);
}

bool BpeEncoder::has_token(unsigned char byte) const {
  const int32_t symbol = byte_symbols_[byte];
  return rules_.spaces_marked ? symbol >= 0 : is_token(symbol);
}

std::string BpeEncoder::replace_bytes_without_token(std::string_view text) const {
  std::string out;
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (c.valid || has_token(static_cast<unsigned char>(text[0]))) {
      out += text.substr(0, c.length);
    } else {
      append_utf8(out, c.code_point);
    }
    text.remove_prefix(c.length);
  }
  return out;
}

bool BpeEncoder::append_whole(std::string_view word, std::vector<TokenId>& out) const {
  // Runs of line breaks are tokens that no merge produces where spaces are marked.
  const bool whole = rules_.ignore_merges || (rules_.spaces_marked && word.find_first_not_of('\n') == word.npos);
  if (!whole || word.size() > table_.max_text_bytes()) return false;
  const auto id = table_.find(rules_.spaces_marked ? std::string(word) : bytes_to_text(word));
  if (!id || !is_token(*id)) return false;
  out.push_back(*id);
  return true;
}

void BpeEncoder::add_symbols(std::string_view word, MergeQueue& queue) const {
  queue.clear();
  if (!rules_.spaces_marked) {
    for (uint32_t i = 0; i < word.size(); ++i) queue.add(i, i + 1, byte_symbols_[static_cast<unsigned char>(word[i])]);
    return;
  }
  for (size_t i = 0; i < word.size();) {
    const size_t length = decode_utf8(word.substr(i)).length;
    queue.add(static_cast<uint32_t>(i), static_cast<uint32_t>(i + length), merges_.symbol(word.substr(i, length)));
    i += length;
  }
}

size_t BpeEncoder::append_symbol(const MergeSymbol& symbol, std::string_view word, std::vector<TokenId>& out) const {
  if (is_token(symbol.id)) {
    out.push_back(symbol.id);
    return 0;
  }
  size_t dropped = 0;
  for (uint32_t i = symbol.begin; i < symbol.end; ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    if (has_token(byte)) {
      out.push_back(byte_symbols_[byte]);
    } else {
      ++dropped;
    }
  }
  return dropped;
}

size_t BpeEncoder::encode(std::string_view raw, std::vector<TokenId>& out) const {
  std::string changed;
  std::string_view text = raw;
  if (!all_bytes_ && !is_valid_utf8(text)) text = changed = replace_bytes_without_token(text);
  if (rules_.spaces_marked) text = changed = mark_spaces(text, false);
  size_t dropped = 0;
  size_t begin = 0;
  MergeQueue queue;
  for (const uint32_t end : split_words(text, rules_)) {
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (append_whole(word, out)) continue;
    add_symbols(word, queue);
    queue.run([&](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<Merge> {
      if (left.id < 0 || right.id < 0) return std::nullopt;
      return merges_.find(left.id, right.id);
    });
    for (int32_t i = 0; i >= 0; i = queue.symbols[i].next) dropped += append_symbol(queue.symbols[i], word, out);
  }
  return dropped;
}

}  // namespace mneme
