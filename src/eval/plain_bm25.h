#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mneme {

/// The usual yardstick of retrieval, kept apart from the memory store that is measured against it: BM25 over lower-case
/// ASCII words and numbers without common English words, endings "ing", "ed", "es" and "s" cut off when three letters
/// stay; k1 = 1.2, b = 0.75, idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5)).
class PlainBm25 {
 public:
  explicit PlainBm25(std::span<const std::string> documents);
  /// Numbers of the best `k` documents, best first, the earlier one of two alike. Those without any of the words follow
  /// in their order, so there are always min(k, documents).
  std::vector<size_t> search(std::string_view query, size_t k) const;

 private:
  std::unordered_map<std::string, std::vector<std::pair<size_t, uint32_t>>> places_;  ///< Documents of a word, counts.
  std::vector<double> lengths_;
  double mean_length_ = 0;
};

}  // namespace mneme
