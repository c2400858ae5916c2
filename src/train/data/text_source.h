#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/philox.h"
#include "train/data/documents.h"
#include "train/data/vocabulary_split.h"

namespace mneme::train {

/// Plain text for pretraining and for distraction inside dialogues: short stories, passages of books, and the user's
/// own documents.
class TextSource {
 public:
  /// `stories`: one a string. `book_folder`: *.txt files, read in order of name; about one in thirty is held out.
  /// `documents`: files and folders, see Documents. Each may be empty, not all. Throws Error.
  TextSource(std::vector<std::string> stories, const std::string& book_folder,
             std::span<const std::string> documents = {});

  /// A whole story, or its first sentences when it is longer than `max_chars`.
  std::string story(PhiloxStream& random, size_t max_chars) const;
  /// Consecutive paragraphs of a book, at most `max_chars`, cut at the end of a sentence; or a part of a document.
  std::string passage(PhiloxStream& random, Split split, size_t max_chars) const;
  /// A story or a passage.
  std::string any(PhiloxStream& random, Split split, size_t max_chars) const;

  /// Distinct lower-case words of 4 to 10 letters in the stories and training books that belong to the training half of
  /// the vocabulary; sorted.
  std::span<const std::string> train_words() const { return train_words_; }

  bool has_stories() const { return !stories_.empty(); }
  bool has_passages() const { return !train_books_.empty() || documents_ != nullptr; }

 private:
  using Paragraphs = std::vector<std::string>;

  std::string book_passage(PhiloxStream& random, Split split, size_t max_chars) const;

  std::vector<std::string> stories_;
  std::vector<Paragraphs> train_books_, held_out_books_;
  std::vector<std::string> train_words_;
  std::unique_ptr<Documents> documents_;
};

/// Typographic quotes, dashes and ellipses as ASCII, markup removed, blanks collapsed.
std::string plain_text(std::string_view text);

/// The longest prefix of at most `max_chars` that ends a sentence; cut at a word when there is none.
std::string cut_at_sentence(std::string_view text, size_t max_chars);

}  // namespace mneme::train
