#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mneme::recall {

/// A piece of a document.
struct Chunk {
  std::string text;
  std::string heading;  ///< Headings above it in Markdown, outermost first: "Guide > Setup".
};

/// Cuts a text into pieces of at most `most` bytes (>= 16): between paragraphs where it can, else after sentences, else
/// between words, else between characters. Short paragraphs under one heading share a piece. Nothing of the text is lost
/// but white space at the cuts. With `markdown`, lines "# ..." end a piece and become headings; fenced code is no heading.
std::vector<Chunk> chunk_text(std::string_view text, bool markdown, size_t most = 1500);

}  // namespace mneme::recall
