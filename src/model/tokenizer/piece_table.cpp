#include "model/tokenizer/piece_table.h"

#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/text_encoder.h"

namespace mneme {
namespace {

std::string unmark_spaces(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    if (text.substr(0, kSpaceMark.size()) == kSpaceMark) {
      out += ' ';
      text.remove_prefix(kSpaceMark.size());
    } else {
      out += text[0];
      text.remove_prefix(1);
    }
  }
  return out;
}

std::string drop_space_before_punctuation(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (i > 0 && text[i - 1] == ' ' && (c == '?' || c == '!' || c == '.' || c == ',')) out.pop_back();
    out += c;
  }
  return out;
}

std::string join_lone_apostrophes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool lone = i > 0 && text[i] == '\'' && text[i - 1] == ' ' && i + 1 < text.size() && text[i + 1] == ' ';
    if (lone && !out.empty() && out.back() == ' ') out.pop_back();
    out += text[i];
    if (lone) ++i;
  }
  return out;
}

std::string join_contractions(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i > 0 && text[i - 1] == ' ' && text[i] == '\'') {
      const std::string_view rest = text.substr(i + 1);
      const bool short_form = rest.substr(0, 1) == "s" || rest.substr(0, 1) == "m" || rest.substr(0, 2) == "re" ||
                              rest.substr(0, 2) == "ve";
      if (short_form) out.pop_back();
    }
    out += text[i];
  }
  return out;
}

}  // namespace

PieceTable::PieceTable(const TokenTable& table, Spelling spelling) {
  begins_.reserve(table.size() + 1);
  begins_.push_back(0);
  for (size_t i = 0; i < table.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    switch (table.kind(id)) {
      case TokenKind::kByte:
        bytes_ += static_cast<char>(table.byte_value(id));
        break;
      case TokenKind::kUserDefined:
        // Not spelled in mapped bytes; where spaces are marked, merges may have made it from marked spaces.
        bytes_ += spelling == Spelling::kMappedBytes ? std::string(table.text(id)) : unmark_spaces(table.text(id));
        break;
      case TokenKind::kNormal:
      case TokenKind::kUnused:
        bytes_ += spelling == Spelling::kMappedBytes ? text_to_bytes(table.text(id)) : unmark_spaces(table.text(id));
        break;
      case TokenKind::kUnknown:
      case TokenKind::kControl:
        bytes_ += table.text(id);
        break;
    }
    begins_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
  bytes_.shrink_to_fit();
}

std::string clean_spaces(std::string_view text) {
  return join_contractions(join_lone_apostrophes(drop_space_before_punctuation(text)));
}

}  // namespace mneme
