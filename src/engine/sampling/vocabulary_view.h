#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mneme {

/// Index of a token in its vocabulary.
using TokenId = int32_t;

/// What samplers and grammars need to know of a vocabulary; an adapter over the tokenizer implements it. Thread-safe for
/// reading; it outlives everything that was built from it.
class VocabularyView {
 public:
  virtual ~VocabularyView() = default;

  /// Number of tokens; logits have one entry for each.
  virtual size_t size() const = 0;
  /// The bytes that token `id` adds to the generated text, not always complete UTF-8. Empty for control tokens and
  /// unused ids, which a grammar therefore never allows. REQUIRES 0 <= id < size().
  virtual std::string piece(TokenId id) const = 0;
  /// Whether `id` ends the answer (end of text, end of turn).
  virtual bool is_end_of_generation(TokenId id) const = 0;
};

}  // namespace mneme
