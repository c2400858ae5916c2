#pragma once

#include <string>

#include "engine/sampling/vocabulary_view.h"
#include "model/tokenizer/tokenizer.h"

namespace mneme {

/// A tokenizer as samplers and grammars see it. The tokenizer must outlive the view.
class TokenizerView : public VocabularyView {
 public:
  explicit TokenizerView(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  size_t size() const override { return tokenizer_.vocab_size(); }
  std::string piece(TokenId id) const override { return std::string(tokenizer_.piece(id)); }
  bool is_end_of_generation(TokenId id) const override { return tokenizer_.is_end_of_generation(id); }

 private:
  const Tokenizer& tokenizer_;
};

}  // namespace mneme
