#include "recall/search/terms.h"

#include <libstemmer.h>
#include <utf8proc.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <unordered_set>

#include "base/utf8.h"

namespace mneme::recall {
namespace {

/// Words that nearly every English text has; most are also in the list of the LoCoMo baseline.
const std::unordered_set<std::string_view> kStopWords = {
    "a",     "about", "an",    "and",   "are",  "as",    "at",  "be",   "been", "but",   "by",   "can",
    "could", "did",   "do",    "does",  "for",  "from",  "had", "has",  "have", "he",    "her",  "him",
    "his",   "how",   "i",     "if",    "in",   "into",  "is",  "it",   "its",  "just",  "me",   "my",
    "not",   "of",    "on",    "or",    "our",  "s",     "she", "so",   "t",    "that",  "the",  "their",
    "them",  "then",  "there", "these", "they", "this",  "to",  "us",   "was",  "we",    "were", "what",
    "when",  "where", "which", "who",   "whom", "whose", "why", "will", "with", "would", "you",  "your"};
constexpr size_t kLongestWord = 64;

struct FreeStemmer {
  void operator()(sb_stemmer* stemmer) const { sb_stemmer_delete(stemmer); }
};

std::string stem(const std::string& word) {
  thread_local const std::unique_ptr<sb_stemmer, FreeStemmer> stemmer(sb_stemmer_new("english", "UTF_8"));
  const sb_symbol* out =
      sb_stemmer_stem(stemmer.get(), reinterpret_cast<const sb_symbol*>(word.data()), static_cast<int>(word.size()));
  if (out == nullptr) return word;
  return {reinterpret_cast<const char*>(out), static_cast<size_t>(sb_stemmer_length(stemmer.get()))};
}

/// Case, accents and compatibility forms removed.
std::string fold(std::string_view text) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; });
  std::string out(text);
  if (ascii) {
    for (char& c : out) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    }
    return out;
  }
  utf8proc_uint8_t* mapped = nullptr;
  constexpr int kOptions =
      UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_STRIPMARK;
  const utf8proc_ssize_t n =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(kOptions));
  if (n >= 0) out.assign(reinterpret_cast<const char*>(mapped), static_cast<size_t>(n));
  std::free(mapped);
  return out;
}

bool is_word_char(uint32_t c) {
  if (c < 128) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;  // letters, marks, numbers
}

bool is_upper(uint32_t c) {
  if (c < 128) return c >= 'A' && c <= 'Z';
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LT;
}

/// Scripts written without blanks between words.
bool is_unspaced(uint32_t c) {
  return (c >= 0x2E80 && c <= 0x9FFF) || (c >= 0xAC00 && c <= 0xD7AF) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x20000 && c <= 0x3FFFF);
}

/// Pairs of neighbouring characters of a run; the character itself when it is alone.
void add_pairs(std::vector<std::string>& words, const std::vector<std::string>& run) {
  if (run.size() == 1) words.push_back(run.front());
  for (size_t i = 0; i + 1 < run.size(); ++i) words.push_back(run[i] + run[i + 1]);
}

}  // namespace

std::vector<std::string> words_of(std::string_view text) {
  const std::string folded = fold(text);
  std::vector<std::string> words, run;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty() && word.size() <= kLongestWord && !kStopWords.contains(word)) words.push_back(stem(word));
    word.clear();
  };
  const auto end_run = [&] {
    add_pairs(words, run);
    run.clear();
  };
  for (size_t at = 0; at < folded.size();) {
    const Utf8Char c = decode_utf8(std::string_view(folded).substr(at));
    const std::string_view bytes = std::string_view(folded).substr(at, c.length);
    at += c.length;
    if (is_unspaced(c.code_point) && is_word_char(c.code_point)) {
      end_word();
      run.emplace_back(bytes);
      continue;
    }
    end_run();
    if (is_word_char(c.code_point)) {
      word += bytes;
    } else {
      end_word();  // also at an apostrophe: "Ann's" is "ann" and the stop word "s"
    }
  }
  end_word();
  end_run();
  return words;
}

std::vector<std::string> entities_of(std::string_view text) {
  struct Word {
    std::string_view text;
    bool upper, starts_sentence, has_digit;
    bool joined;  ///< Only blanks or a hyphen between it and the word before.
  };
  std::vector<Word> words;
  std::vector<std::string> found;
  bool sentence = true;
  size_t last_end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(at));
    if (c.code_point == '"') {
      const size_t close = text.find('"', at + 1);
      if (close != text.npos && close - at - 1 >= 3 && close - at - 1 <= 60) {
        found.push_back(fold(text.substr(at + 1, close - at - 1)));
      }
    }
    if (!is_word_char(c.code_point)) {
      if (c.code_point == '.' || c.code_point == '!' || c.code_point == '?' || c.code_point == '\n' ||
          c.code_point == ':') {
        sentence = true;
      }
      at += c.length;
      continue;
    }
    const size_t begin = at;
    bool digit = false;
    while (at < text.size()) {
      const Utf8Char next = decode_utf8(text.substr(at));
      const bool inner_dot = (next.code_point == '.' || next.code_point == '_') && at + 1 < text.size() &&
                             is_word_char(decode_utf8(text.substr(at + 1)).code_point);
      if (!is_word_char(next.code_point) && !inner_dot) break;
      digit |= inner_dot || (next.code_point >= '0' && next.code_point <= '9');
      at += next.length;
    }
    const std::string_view between = text.substr(last_end, begin - last_end);
    const bool joined = !words.empty() && between.find_first_not_of(" -") == between.npos;
    words.push_back({text.substr(begin, at - begin), is_upper(c.code_point), sentence, digit, joined});
    sentence = false;
    last_end = at;
  }
  for (size_t i = 0; i < words.size();) {
    size_t end = i;
    while (end < words.size() && words[end].upper && (end == i || (words[end].joined && !words[end].starts_sentence))) {
      ++end;
    }
    if (end > i) {
      // "The Louvre" is "louvre"; other first words of a sentence are kept, a rare word more does no harm.
      size_t begin = i;
      if (kStopWords.contains(fold(words[begin].text))) ++begin;
      std::string name;
      for (size_t k = begin; k < end; ++k) {
        const std::string part = fold(words[k].text);
        name += (k > begin ? " " : "") + part;
        if (part.size() > 1) found.push_back(part);
      }
      if (end - begin > 1) found.push_back(name);
      i = end;
      continue;
    }
    if (words[i].has_digit && words[i].text.size() > 2 && words[i].text.size() <= 60) {
      found.push_back(fold(words[i].text));
    }
    ++i;
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::string TermHasher::term(Class type, std::string_view word) const {
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuv";
  uint64_t hash = XXH3_64bits_withSeed(word.data(), word.size(), key_ + static_cast<uint64_t>(type));
  std::string out(1, static_cast<char>(type));
  for (int i = 0; i < 8; ++i, hash >>= 5) out += kDigits[hash & 31];
  return out;
}

std::vector<std::string> TermHasher::word_terms(std::string_view text) const {
  std::vector<std::string> terms;
  for (const std::string& word : words_of(text)) terms.push_back(term(Class::kWord, word));
  return terms;
}

std::vector<std::string> TermHasher::entity_terms(std::string_view text) const {
  std::vector<std::string> terms;
  for (const std::string& entity : entities_of(text)) terms.push_back(term(Class::kEntity, entity));
  return terms;
}

std::vector<std::string> TermHasher::record_terms(const Record& record) const {
  std::vector<std::string> terms = word_terms(record.text);
  for (const std::string& tag : record.tags) {
    for (std::string& each : word_terms(tag)) terms.push_back(std::move(each));
  }
  std::vector<std::string> entities = entity_terms(record.text);
  if (!record.speaker.empty()) entities.push_back(term(Class::kEntity, fold(record.speaker)));
  std::sort(entities.begin(), entities.end());
  entities.erase(std::unique(entities.begin(), entities.end()), entities.end());
  terms.insert(terms.end(), entities.begin(), entities.end());
  return terms;
}

}  // namespace mneme::recall
