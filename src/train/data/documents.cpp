#include "train/data/documents.h"

#include <algorithm>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/lines.h"
#include "base/utf8.h"

namespace mneme::train {
namespace {

constexpr size_t kPieceBytes = 16384;
constexpr size_t kHoldOutEvery = 30;
constexpr uint64_t kMostFileBytes = uint64_t{4} << 30;

bool is_text_file(const std::filesystem::path& path) {
  return path.extension() == ".txt" || path.extension() == ".md" || path.extension() == ".jsonl";
}

/// Where a character begins at or before `at`.
size_t character_start(std::string_view text, size_t at) {
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

/// Cuts a document into pieces of about kPieceBytes at line ends, or where there are none between characters.
void cut(std::string_view document, std::vector<std::string>& pieces) {
  while (!document.empty()) {
    size_t end = document.size();
    if (end > kPieceBytes) {
      const size_t line_end = document.rfind('\n', kPieceBytes);
      end = line_end == document.npos || line_end == 0 ? character_start(document, kPieceBytes) : line_end + 1;
    }
    pieces.emplace_back(document.substr(0, end));
    document.remove_prefix(end);
  }
}

void read_jsonl(const std::string& path, std::vector<std::string>& pieces) {
  const std::string text = checked_text(path);
  for_each_line(text, [&](std::string_view line, size_t number) {
    const Json object = parse_json(line, fmt::format("line {} of {}", number, path));
    const auto found = object.is_object() ? object.find("text") : object.end();
    if (!object.is_object() || found == object.end() || !found->is_string()) {
      fail(ErrorCode::kCorruptData, "[text] expected an object with a string \"text\", found another on line {} of {}",
           number, path);
    }
    cut(found->get<std::string>(), pieces);
  });
}

}  // namespace

std::vector<std::string> text_files(std::span<const std::string> paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      if (!std::filesystem::exists(path))
        fail(ErrorCode::kNotFound, "[text] expected a file or folder, found nothing at {}", path);
      files.push_back(path);
      continue;
    }
    std::vector<std::string> inside;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file() && is_text_file(entry.path())) inside.push_back(entry.path().string());
    }
    if (inside.empty()) fail(ErrorCode::kNotFound, "[text] expected *.txt, *.md or *.jsonl, found none in {}", path);
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

std::string checked_text(const std::string& path) {
  std::string text = read_text_file(path, kMostFileBytes);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    fail(ErrorCode::kCorruptData, "[text] expected text, found an empty file: {}", path);
  if (const size_t zero = text.find('\0'); zero != std::string::npos) {
    fail(ErrorCode::kCorruptData, "[text] expected text, found a zero byte at offset {} of {}", zero, path);
  }
  if (!is_valid_utf8(text)) fail(ErrorCode::kCorruptData, "[text] expected UTF-8, found other bytes in {}", path);
  return text;
}

Documents::Documents(std::span<const std::string> paths) {
  std::vector<std::string> pieces;
  for (const std::string& path : text_files(paths)) {
    if (path.ends_with(".jsonl")) {
      read_jsonl(path, pieces);
    } else {
      cut(checked_text(path), pieces);
    }
  }
  if (pieces.empty()) fail(ErrorCode::kCorruptData, "[text] expected text, found only empty documents");
  // A single piece serves as both: there is nothing to hold out.
  for (size_t i = 0; i < pieces.size(); ++i) {
    const bool hold_out = pieces.size() > 1 && i % kHoldOutEvery == std::min(kHoldOutEvery, pieces.size()) - 1;
    (hold_out ? held_out_ : train_).push_back(std::move(pieces[i]));
  }
}

std::string Documents::passage(PhiloxStream& random, Split split, size_t max_chars) const {
  const auto& pieces = split == Split::kHeldOut && !held_out_.empty() ? held_out_ : train_;
  const std::string_view piece = pieces[random.next_below(pieces.size())];
  size_t begin = 0;
  if (piece.size() > max_chars) {
    begin = random.next_below(piece.size() - max_chars + 1);
    const size_t line_end = piece.find('\n', begin);
    begin = begin == 0 || line_end == piece.npos || line_end + 1 >= piece.size() ? character_start(piece, begin)
                                                                                 : line_end + 1;
  }
  const size_t end = begin + max_chars >= piece.size() ? piece.size() : character_start(piece, begin + max_chars);
  return std::string(piece.substr(begin, end - begin));
}

}  // namespace mneme::train
