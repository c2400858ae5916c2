#include "engine/grammar/vocabulary_trie.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"

namespace mneme {

namespace {

size_t shared_length(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

VocabularyTrie::VocabularyTrie(const VocabularyView& vocabulary, Ledger& ledger)
    : vocabulary_(vocabulary), memory_(ledger.reserve(Tag::kCache, 0, "vocabulary tree of grammars")) {
  std::vector<std::pair<std::string, TokenId>> texts;
  const Reservation scratch =
      ledger.reserve(Tag::kScratch, vocabulary.size() * (sizeof texts[0] + 16), "sorting the vocabulary for grammars");
  texts.reserve(vocabulary.size());
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (vocabulary.is_end_of_generation(id)) {
      ends_.push_back(id);
      continue;
    }
    std::string text = vocabulary.piece(id);
    if (text.size() > std::numeric_limits<uint16_t>::max()) {
      fail(ErrorCode::kUnsupported, "[grammar] expected tokens of at most 65535 bytes, found {} in token {}",
           text.size(), id);
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

  size_t n_nodes = 1;  // the sentinel
  std::string_view previous;
  for (const auto& [text, id] : texts) {
    n_nodes += text.size() - shared_length(text, previous);
    previous = text;
  }
  memory_.resize(n_nodes * sizeof(Node) + (texts.size() + ends_.size() + left_out_.size()) * sizeof(TokenId));
  nodes_.reserve(n_nodes);
  tokens_.reserve(texts.size());

  std::vector<uint32_t> open;  // nodes on the path to the last text
  previous = {};
  for (const auto& [text, id] : texts) {
    const size_t shared = shared_length(text, previous);
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
