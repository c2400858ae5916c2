#include "train/data/text_source.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"

namespace mneme::train {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kReplacements = {{
    {"\u201C", "\""}, {"\u201D", "\""}, {"\u2018", "'"}, {"\u2019", "'"}, {"\u2014", " - "}, {"\u2013", "-"},
    {"\u2026", "..."}, {"\u00A0", " "}, {"\uFEFF", ""}}};

/// Paragraphs of prose: headings, rules and very short lines are left out.
std::vector<std::string> paragraphs_of(const std::string& text) {
  std::vector<std::string> result;
  size_t begin = text.find("\n-------");
  begin = begin == std::string::npos ? 0 : text.find('\n', begin + 1);
  while (begin < text.size()) {
    const size_t end = std::min(text.find("\n\n", begin), text.size());
    const std::string_view block = std::string_view(text).substr(begin, end - begin);
    const size_t first = block.find_first_not_of(" \n\r");
    if (first != std::string_view::npos && block[first] != '#' && block.size() >= 40) result.push_back(plain_text(block));
    begin = end + 2;
  }
  return result;
}

/// Adds the words of 4 to 10 lower-case letters; what touches a capital, digit or apostrophe is left out.
void collect_words(std::string_view text, std::set<std::string, std::less<>>& words) {
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto ends_word = [](char c) { return c == ' ' || c == '.' || c == ',' || c == ';' || c == '!' || c == '?'; };
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    while (i < text.size() && is_lower(text[i])) ++i;
    const size_t length = i - begin;
    const bool whole = (begin == 0 || text[begin - 1] == ' ') && (i == text.size() || ends_word(text[i]));
    if (whole && length >= 4 && length <= 10) {
      const std::string_view word = text.substr(begin, length);
      if (split_of(word) == Split::kTrain && words.find(word) == words.end()) words.emplace(word);
    }
    if (length == 0) ++i;
  }
}

}  // namespace

std::string plain_text(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto rest = text.substr(i);
    const auto found = std::find_if(kReplacements.begin(), kReplacements.end(),
                                    [&](const auto& replacement) { return rest.starts_with(replacement.first); });
    if (found != kReplacements.end()) {
      result += found->second;
      i += found->first.size();
      continue;
    }
    const char c = text[i++];
    if (c == '_' || c == '*' || c == '\r') continue;
    result += c == '\n' || c == '\t' ? ' ' : c;
  }
  std::string collapsed;
  for (const char c : result) {
    if (c == ' ' && (collapsed.empty() || collapsed.back() == ' ')) continue;
    collapsed += c;
  }
  while (!collapsed.empty() && collapsed.back() == ' ') collapsed.pop_back();
  return collapsed;
}

std::string cut_at_sentence(std::string_view text, size_t max_chars) {
  if (text.size() <= max_chars) return std::string(text);
  const std::string_view head = text.substr(0, max_chars);
  for (size_t i = head.size(); i-- > 1;) {
    const bool ends = head[i] == '.' || head[i] == '!' || head[i] == '?' || (head[i] == '"' && (head[i - 1] == '.' || head[i - 1] == '!' || head[i - 1] == '?'));
    if (ends && text[i + 1] == ' ') return std::string(head.substr(0, i + 1));
  }
  const size_t blank = head.rfind(' ');
  return std::string(head.substr(0, blank == std::string_view::npos ? 0 : blank));
}

TextSource::TextSource(std::vector<std::string> stories, const std::string& book_folder,
                       std::span<const std::string> documents)
    : stories_(std::move(stories)) {
  std::erase_if(stories_, [](const std::string& story) { return story.size() < 40; });
  if (!book_folder.empty()) {
    std::vector<std::filesystem::path> paths;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(book_folder, error)) {
      if (entry.path().extension() == ".txt") paths.push_back(entry.path());
    }
    if (error) fail(ErrorCode::kNotFound, "[text] expected a folder of books, found {}: {}", book_folder, error.message());
    std::sort(paths.begin(), paths.end());
    for (size_t i = 0; i < paths.size(); ++i) {
      Paragraphs paragraphs = paragraphs_of(read_text_file(paths[i].string()));
      if (paragraphs.size() < 4) continue;
      (i % 30 == 29 ? held_out_books_ : train_books_).push_back(std::move(paragraphs));
    }
  }
  if (!documents.empty()) documents_ = std::make_unique<Documents>(documents);
  std::set<std::string, std::less<>> words;
  for (const std::string& story : stories_) collect_words(story, words);
  for (const Paragraphs& book : train_books_) {
    for (const std::string& paragraph : book) collect_words(paragraph, words);
  }
  train_words_.assign(words.begin(), words.end());
  if (stories_.empty() && !has_passages()) {
    fail(ErrorCode::kInvalidArgument, "[text] expected stories, books or documents, found none in {}",
         book_folder.empty() ? "the recipe" : book_folder);
  }
}

std::string TextSource::story(PhiloxStream& random, size_t max_chars) const {
  return cut_at_sentence(stories_[random.next_below(stories_.size())], max_chars);
}

std::string TextSource::passage(PhiloxStream& random, Split split, size_t max_chars) const {
  const bool use_document = documents_ != nullptr && (train_books_.empty() || random.next_below(2) == 0);
  return use_document ? documents_->passage(random, split, max_chars) : book_passage(random, split, max_chars);
}

std::string TextSource::book_passage(PhiloxStream& random, Split split, size_t max_chars) const {
  const auto& books = split == Split::kHeldOut && !held_out_books_.empty() ? held_out_books_ : train_books_;
  // Long books count more, so that each paragraph is as likely as any other.
  size_t total = 0;
  for (const Paragraphs& book : books) total += book.size();
  size_t index = random.next_below(total);
  const Paragraphs* book = books.data();
  while (index >= book->size()) index -= (book++)->size();
  std::string text;
  for (; index < book->size() && text.size() < max_chars; ++index) {
    if (!text.empty()) text += ' ';
    text += (*book)[index];
  }
  return cut_at_sentence(text, max_chars);
}

std::string TextSource::any(PhiloxStream& random, Split split, size_t max_chars) const {
  const bool use_story = has_stories() && (!has_passages() || random.next_below(2) == 0);
  return use_story ? story(random, max_chars) : passage(random, split, max_chars);
}

}  // namespace mneme::train
