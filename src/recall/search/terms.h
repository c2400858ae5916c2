#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "recall/record.h"

namespace mneme::recall {

/// Version of the rules below; a store whose index was made by other rules is indexed anew.
constexpr int kTermRules = 1;

/// The words of a text in the form in which they are compared: compatibility forms unified, case and accents removed,
/// English stop words left out, English stems (Snowball), runs of Chinese, Japanese and Korean cut into pairs.
std::vector<std::string> words_of(std::string_view text);

/// Names in a text by its form alone: runs of capitalised words and each word of them (stop words
/// left out), quoted strings of 3 to 60 bytes, words with digits or inner dots. In the form of compared text (lower case).
std::vector<std::string> entities_of(std::string_view text);

/// Makes index terms: 40-bit keyed hashes of words, 9 characters. The index of a store thus holds no byte of a text, and
/// two stores hash differently.
class TermHasher {
 public:
  enum class Class : char { kWord = 'w', kEntity = 'e' };

  explicit TermHasher(uint64_t key) : key_(key) {}
  std::string term(Class type, std::string_view word) const;
  /// Terms of a text's words, in order, repeated as they are.
  std::vector<std::string> word_terms(std::string_view text) const;
  /// Distinct terms of a text's entities.
  std::vector<std::string> entity_terms(std::string_view text) const;
  /// What of a record is indexed: its text and tags as words, the speaker and the names in the text as entities.
  std::vector<std::string> record_terms(const Record& record) const;

 private:
  uint64_t key_;
};

}  // namespace mneme::recall
