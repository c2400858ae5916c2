#include "model/tokenizer/word_piece_encoder.h"

#include <utility>

#include "base/utf8.h"
#include "model/tokenizer/char_class.h"

namespace mneme {
namespace {

bool is_ideograph(uint32_t c) {
  // The gap at U+2B820 is that of the reference implementation, which models were trained with.
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/// Appends characters to words.
class WordBuilder {
 public:
  explicit WordBuilder(const WordPieceRules& rules) : rules_(rules) {}

  void add(uint32_t c) {
    const uint16_t classes = char_classes(c);
    if ((classes & kSpace) != 0) return end_word();
    if (c == 0 || c == 0xFFFD || (classes & kControl) != 0) return;
    if (rules_.strip_accents && (classes & kNonspacingMark) != 0) return;
    const bool alone = (classes & kPunctuation) != 0 || (c < 0x7F && (classes & kSymbol) != 0) || is_ideograph(c);
    if (alone) end_word();
    append_utf8(word_, rules_.lowercase ? lower_case(c) : c);
    if (alone) end_word();
  }

  std::vector<std::string> finish() {
    end_word();
    return std::move(words_);
  }

 private:
  void end_word() {
    if (!word_.empty()) words_.push_back(std::exchange(word_, {}));
  }

  const WordPieceRules& rules_;
  std::vector<std::string> words_;
  std::string word_;
};

}  // namespace

std::vector<std::string> split_word_piece_words(std::string_view text, const WordPieceRules& rules) {
  WordBuilder words(rules);
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    text.remove_prefix(c.length);
    if (c.code_point < 0x80 || !rules.strip_accents) {
      words.add(c.code_point);
    } else {
      for (const uint32_t part : decompose(c.code_point)) words.add(part);
    }
  }
  return words.finish();
}

WordPieceEncoder::WordPieceEncoder(const TokenTable& table, WordPieceRules rules, std::optional<TokenId> unk)
    : rules_(rules), unk_(unk) {
  std::vector<PrefixTree::Entry> entries;
  for (size_t i = 0; i < table.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (table.is_plain(id)) entries.push_back({table.text(id), id});
  }
  tree_ = PrefixTree(std::move(entries));
}

bool WordPieceEncoder::append_word(std::string_view word, std::vector<TokenId>& out) const {
  const size_t n_before = out.size();
  while (!word.empty()) {
    size_t longest = 0;
    TokenId id = -1;
    tree_.for_each_prefix(word, [&](size_t length, int32_t value) {
      longest = length;
      id = value;
    });
    if (longest == 0) {
      out.resize(n_before);
      return false;
    }
    out.push_back(id);
    word.remove_prefix(longest);
  }
  return true;
}

size_t WordPieceEncoder::encode(std::string_view raw, std::vector<TokenId>& out) const {
  size_t dropped = 0;
  for (const std::string& word : split_word_piece_words(raw, rules_)) {
    if (append_word(std::string(kSpaceMark) + word, out)) continue;
    if (unk_) {
      out.push_back(*unk_);
    } else {
      dropped += word.size();
    }
  }
  return dropped;
}

}  // namespace mneme
