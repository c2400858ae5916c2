#include "model/tokenizer/token_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "base/error.h"

namespace mneme {
namespace {

uint64_t hash_of(std::string_view text) {
  return std::hash<std::string_view>{}(text);
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool is_byte_text(std::string_view text) {
  return text.size() == 6 && text.substr(0, 3) == "<0x" && text[5] == '>' && hex_value(text[3]) >= 0 &&
         hex_value(text[4]) >= 0;
}

void check_lengths(const Vocabulary& v) {
  const size_t n = v.tokens.size();
  const auto check = [&](std::string_view what, size_t found) {
    if (found == 0 || found == n) return;
    fail(ErrorCode::kCorruptData, "[tokenizer] expected {} {}, one a token, found {}", n, what, found);
  };
  if (n == 0 || n >= size_t{1} << 30)
    fail(ErrorCode::kCorruptData, "[tokenizer] expected 1 to 2^30 tokens, found {}", n);
  check("scores", v.scores.size());
  check("token types", v.kinds.size());
  for (size_t i = 0; i < v.scores.size(); ++i) {
    if (std::isnan(v.scores[i])) fail(ErrorCode::kCorruptData, "[tokenizer] the score of token {} is not a number", i);
  }
}

}  // namespace

TokenTable::TokenTable(const Vocabulary& v) : kinds_(v.kinds), scores_(v.scores) {
  check_lengths(v);
  const size_t n = v.tokens.size();
  if (kinds_.empty()) kinds_.assign(n, TokenKind::kNormal);
  uint64_t bytes = 0;
  for (const std::string& token : v.tokens) bytes += token.size();
  if (bytes >= uint64_t{1} << 31)
    fail(ErrorCode::kUnsupported, "[tokenizer] {} bytes of token text, at most 2^31", bytes);
  texts_.reserve(bytes);
  begins_.reserve(n + 1);
  begins_.push_back(0);
  for (size_t i = 0; i < n; ++i) {
    texts_ += v.tokens[i].empty() ? fmt::format("[EMPTY_{}]", i) : v.tokens[i];
    max_text_bytes_ = std::max(max_text_bytes_, texts_.size() - begins_.back());
    begins_.push_back(static_cast<uint32_t>(texts_.size()));
    const auto id = static_cast<TokenId>(i);
    if (kinds_[i] == TokenKind::kByte && !is_byte_text(text(id))) {
      fail(ErrorCode::kCorruptData, "[tokenizer] expected a text like <0x0A>, found {} other bytes, in byte token {}",
           text(id).size(), i);
    }
  }
  build_index();
}

void TokenTable::build_index() {
  slots_.resize(std::bit_ceil(size() + size() / 2 + 1));
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const uint64_t hash = hash_of(text(id));
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t at = hash & mask;
    for (; slots_[at].id >= 0; at = (at + 1) & mask) {
      if (slots_[at].tag == tag && text(slots_[at].id) == text(id)) {
        fail(ErrorCode::kCorruptData, "[tokenizer] expected distinct tokens, found the same text in {} and {}",
             slots_[at].id, id);
      }
    }
    slots_[at] = {tag, id};
  }
}

std::optional<TokenId> TokenTable::find(std::string_view wanted) const {
  if (wanted.size() > max_text_bytes_) return std::nullopt;
  const uint64_t hash = hash_of(wanted);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask; slots_[at].id >= 0; at = (at + 1) & mask) {
    if (slots_[at].tag == tag && text(slots_[at].id) == wanted) return slots_[at].id;
  }
  return std::nullopt;
}

unsigned char TokenTable::byte_value(TokenId id) const {
  const std::string_view t = text(id);
  return static_cast<unsigned char>(hex_value(t[3]) * 16 + hex_value(t[4]));
}

size_t TokenTable::memory_bytes() const {
  return texts_.capacity() + begins_.capacity() * sizeof(uint32_t) + kinds_.capacity() * sizeof(TokenKind) +
         scores_.capacity() * sizeof(float) + slots_.capacity() * sizeof(Slot);
}

std::string byte_token_text(unsigned char byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace mneme
