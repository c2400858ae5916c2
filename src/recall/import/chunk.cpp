#include "recall/import/chunk.h"

#include <algorithm>

#include "base/utf8.h"

namespace mneme::recall {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

/// Length of the best first piece of at most `most` bytes of a longer text.
size_t cut_length(std::string_view text, size_t most) {
  const std::string_view head = text.substr(0, most);
  size_t sentence = 0, word = 0;
  for (size_t i = 1; i < head.size(); ++i) {
    if (kBlanks.find(head[i]) == kBlanks.npos) continue;
    word = i;
    const char before = head[i - 1];
    if (before == '.' || before == '!' || before == '?' || before == '\n') sentence = i;
  }
  if (sentence > most / 4) return sentence;
  if (word > 0) return word;
  const size_t tail = incomplete_utf8_tail(head);
  return head.size() > tail ? head.size() - tail : head.size();
}

/// Gathers paragraphs until a piece is full.
class Chunks {
 public:
  explicit Chunks(size_t most) : most_(most) {}

  void set_heading(std::string heading) {
    end_piece();
    heading_ = std::move(heading);
  }
  void add(std::string_view paragraph) {
    paragraph = trimmed(paragraph);
    if (paragraph.empty()) return;
    if (!open_.empty() && open_.size() + 2 + paragraph.size() > most_) end_piece();
    while (paragraph.size() > most_) {
      const size_t length = cut_length(paragraph, most_);
      chunks_.push_back({std::string(trimmed(paragraph.substr(0, length))), heading_});
      paragraph = trimmed(paragraph.substr(length));
    }
    if (paragraph.empty()) return;
    if (!open_.empty()) open_ += "\n\n";
    open_ += paragraph;
  }
  std::vector<Chunk> finish() {
    end_piece();
    return std::move(chunks_);
  }

 private:
  void end_piece() {
    if (!open_.empty()) chunks_.push_back({std::move(open_), heading_});
    open_.clear();
  }

  size_t most_;
  std::string heading_, open_;
  std::vector<Chunk> chunks_;
};

/// Level of a heading line, 0 for other lines.
size_t heading_level(std::string_view line) {
  const size_t level = std::min(line.find_first_not_of('#'), line.size());
  return level >= 1 && level <= 6 && level < line.size() && line[level] == ' ' ? level : 0;
}

}  // namespace

std::vector<Chunk> chunk_text(std::string_view text, bool markdown, size_t most) {
  Chunks chunks(std::max<size_t>(most, 16));
  std::vector<std::string> headings;  // by level
  std::string paragraph;
  bool code = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (markdown && trimmed(line).starts_with("```")) code = !code;
    const size_t level = markdown && !code ? heading_level(line) : 0;
    if (level > 0) {
      chunks.add(paragraph);
      paragraph.clear();
      headings.resize(std::min(headings.size(), level - 1));
      headings.resize(level - 1);
      headings.emplace_back(trimmed(line.substr(level)));
      std::string path;
      for (const std::string& heading : headings) {
        if (!heading.empty()) path += (path.empty() ? "" : " > ") + shortened(heading, 200);
      }
      chunks.set_heading(std::move(path));
    } else if (trimmed(line).empty() && !code) {
      chunks.add(paragraph);
      paragraph.clear();
    } else {
      if (!paragraph.empty()) paragraph += '\n';
      paragraph += line;
    }
  }
  chunks.add(paragraph);
  return chunks.finish();
}

}  // namespace mneme::recall
