#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// A vocabulary given as a list, for tests and fuzz targets.
class ListVocabulary : public VocabularyView {
 public:
  explicit ListVocabulary(std::vector<std::string> pieces, std::set<TokenId> ends = {})
      : pieces_(std::move(pieces)), ends_(std::move(ends)) {}
  /// n tokens without text.
  explicit ListVocabulary(size_t n) : pieces_(n) {}

  size_t size() const override { return pieces_.size(); }
  std::string piece(TokenId id) const override { return pieces_[static_cast<size_t>(id)]; }
  bool is_end_of_generation(TokenId id) const override { return ends_.contains(id); }

 private:
  std::vector<std::string> pieces_;
  std::set<TokenId> ends_;
};

}  // namespace mneme
