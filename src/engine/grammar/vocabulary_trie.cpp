#include "engine/grammar/vocabulary_trie.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"

namespace mneme {

VocabularyTrie::VocabularyTrie(const VocabularyView& vocabulary) : vocabulary_(vocabulary) {
  std::vector<std::pair<std::string, TokenId>> texts;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (vocabulary.is_end_of_generation(id)) {
      ends_.push_back(id);
      continue;
    }
    std::string text = vocabulary.piece(id);
    if (text.size() > std::numeric_limits<uint16_t>::max()) {
      fail(ErrorCode::kUnsupported, "[grammar] expected tokens of at most 65535 bytes, found {} in token {}", text.size(), id);
    }
    if (text.empty()) continue;
    if (text.front() == '\0') {
      left_out_.push_back(id);
      continue;
    }
    longest_text_ = std::max(longest_text_, text.size());
    texts.emplace_back(std::move(text), id);
  }
  std::sort(texts.begin(), texts.end());

  std::vector<uint32_t> open;  // nodes on the path to the last text
  std::string_view previous;
  for (const auto& [text, id] : texts) {
    const size_t shared =
        static_cast<size_t>(std::mismatch(text.begin(), text.end(), previous.begin(), previous.end()).first - text.begin());
    for (; open.size() > shared; open.pop_back()) nodes_[open.back()].end = static_cast<uint32_t>(nodes_.size());
    for (size_t depth = shared; depth < text.size(); ++depth) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<uint32_t>(tokens_.size()), static_cast<uint16_t>(depth + 1),
                        static_cast<unsigned char>(text[depth])});
    }
    tokens_.push_back(id);
    previous = text;
  }
  for (; !open.empty(); open.pop_back()) nodes_[open.back()].end = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({static_cast<uint32_t>(nodes_.size()), static_cast<uint32_t>(tokens_.size()), 0, 0});
}

}  // namespace mneme
