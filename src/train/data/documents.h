#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/philox.h"
#include "train/data/vocabulary_split.h"

namespace mneme::train {

/// The user's own texts, kept as they are: whole text files, or the "text" field of each line of JSONL files. They are
/// cut into pieces at line ends; about one piece in thirty is held out.
class Documents {
 public:
  /// `paths`: files, or folders whose *.txt, *.md and *.jsonl are read in order of name, folders inside included.
  /// Throws Error: kNotFound for a missing path or a folder without such files, kCorruptData that names file and line
  /// for text that is empty, no UTF-8 or holds zero bytes, and for JSONL without a "text" field.
  explicit Documents(std::span<const std::string> paths);

  /// At most `max_chars` of a piece, from the beginning of a line on; where in the texts depends on `random` alone,
  /// every piece being as likely.
  std::string passage(PhiloxStream& random, Split split, size_t max_chars) const;

  size_t n_pieces() const { return train_.size() + held_out_.size(); }

 private:
  std::vector<std::string> train_, held_out_;
};

/// The files that `paths` name, folders replaced by their text files. Throws Error(kNotFound).
std::vector<std::string> text_files(std::span<const std::string> paths);

/// A file as text. Throws Error(kCorruptData) when it is empty, no UTF-8 or holds zero bytes.
std::string checked_text(const std::string& path);

}  // namespace mneme::train
