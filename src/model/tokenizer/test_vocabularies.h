#pragma once

// Small vocabularies and random texts that tests of tokenizers share.

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/token_table.h"
#include "model/tokenizer/vocabulary.h"

namespace mneme {

inline void add_token(Vocabulary& v, std::string text, TokenKind kind = TokenKind::kNormal, float score = 0) {
  v.tokens.push_back(std::move(text));
  v.kinds.push_back(kind);
  v.scores.push_back(score);
}

/// "llama": <unk> <s> </s>, the 256 byte tokens (from id 3), then `pieces` with falling scores -1, -2, ...
inline Vocabulary spm_vocabulary(const std::vector<std::string>& pieces) {
  Vocabulary v;
  v.model = "llama";
  add_token(v, "<unk>", TokenKind::kUnknown);
  add_token(v, "<s>", TokenKind::kControl);
  add_token(v, "</s>", TokenKind::kControl);
  for (int b = 0; b < 256; ++b) add_token(v, byte_token_text(static_cast<unsigned char>(b)), TokenKind::kByte);
  for (const std::string& piece : pieces)
    add_token(v, piece, TokenKind::kNormal, 256 - static_cast<float>(v.tokens.size()));
  return v;
}

/// "gpt2" with the 256 bytes as ids 0 to 255, then what each of `merges` ("left right") makes, then one control token
/// "<|end|>".
inline Vocabulary byte_level_vocabulary(std::string pre, const std::vector<std::string>& merges) {
  Vocabulary v;
  v.model = "gpt2";
  v.pre = std::move(pre);
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    add_token(v, bytes_to_text({&byte, 1}));
  }
  for (const std::string& merge : merges) {
    std::string joined = merge;
    joined.erase(joined.find(' ', 1), 1);
    add_token(v, joined);
  }
  v.merges = merges;
  add_token(v, "<|end|>", TokenKind::kControl);
  return v;
}

/// Any bytes.
inline std::string random_bytes(std::mt19937& random, size_t n) {
  std::string text(n, '\0');
  for (char& c : text) c = static_cast<char>(random() & 0xFF);
  return text;
}

/// Characters of a mixed alphabet, where those that matter to tokenizers are frequent.
inline std::string random_text(std::mt19937& random, size_t n_characters) {
  static constexpr std::u32string_view kAlphabet =
      U"   \n\n\r\t\u00A0\u3000''''sStTmMdDrReEvVlLabcXYZaaa012349.,!?-_/()<>|~`$^+=#\"\\"
      U"éüßΣσЖжДд中文字ひカ한글ंिא٣²½Ⅷ\u0301\u0308ʰǅªſ—«»¥€😀🚀\u200D\uFE0F\uFFFD\u2581…。，、।";
  std::string text;
  for (size_t i = 0; i < n_characters; ++i) append_utf8(text, kAlphabet[random() % kAlphabet.size()]);
  return text;
}

}  // namespace mneme
