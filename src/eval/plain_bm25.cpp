#include "eval/plain_bm25.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

namespace mneme {
namespace {

const std::unordered_set<std::string_view> kCommon = {
    "a",     "about", "an",    "and",  "are",   "as",   "at",   "be",   "been",  "but",  "by",    "can",
    "could", "did",   "do",    "does", "for",   "from", "had",  "has",  "have",  "he",   "her",   "him",
    "his",   "how",   "i",     "if",   "in",    "into", "is",   "it",   "its",   "me",   "my",    "not",
    "of",    "on",    "or",    "our",  "s",     "she",  "so",   "t",    "that",  "the",  "their", "them",
    "then",  "there", "these", "they", "this",  "to",   "us",   "was",  "we",    "were", "what",  "when",
    "where", "which", "who",   "whom", "whose", "why",  "will", "with", "would", "you",  "your"};

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += static_cast<char>(upper ? c + 32 : c);
      continue;
    }
    if (!word.empty() && !kCommon.contains(word)) {
      size_t length = word.size();
      for (const std::string_view end : {"ing", "ed", "es", "s"}) {
        if (!word.ends_with(end) || word.size() < end.size() + 3) continue;
        length -= end.size();
        break;
      }
      words.push_back(word.substr(0, length));
    }
    word.clear();
  }
  return words;
}

}  // namespace

PlainBm25::PlainBm25(std::span<const std::string> documents) {
  for (size_t d = 0; d < documents.size(); ++d) {
    const std::vector<std::string> words = words_of(documents[d]);
    lengths_.push_back(static_cast<double>(words.size()));
    for (const std::string& word : words) {
      auto& places = places_[word];
      if (places.empty() || places.back().first != d) places.emplace_back(d, 0);
      ++places.back().second;
    }
  }
  const double sum = std::accumulate(lengths_.begin(), lengths_.end(), 0.0);
  mean_length_ = std::max(1.0, sum / static_cast<double>(std::max<size_t>(lengths_.size(), 1)));
}

std::vector<size_t> PlainBm25::search(std::string_view query, size_t k) const {
  constexpr double k1 = 1.2, b = 0.75;
  std::vector<double> scores(lengths_.size());
  std::unordered_set<std::string> seen;
  for (const std::string& word : words_of(query)) {
    const auto found = places_.find(word);
    if (found == places_.end() || !seen.insert(word).second) continue;
    const double n = static_cast<double>(found->second.size());
    const double idf = std::log(1 + (static_cast<double>(lengths_.size()) - n + 0.5) / (n + 0.5));
    for (const auto& [document, count] : found->second) {
      const double c = count;
      scores[document] += idf * c * (k1 + 1) / (c + k1 * (1 - b + b * lengths_[document] / mean_length_));
    }
  }
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  k = std::min(k, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(k), order.end(),
                    [&](size_t x, size_t y) { return scores[x] != scores[y] ? scores[x] > scores[y] : x < y; });
  order.resize(k);
  return order;
}

}  // namespace mneme
