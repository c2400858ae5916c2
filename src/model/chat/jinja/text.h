#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"

namespace mneme::jinja {

/// A string of a template that remembers, byte by byte, where it came from: the template itself, or data handed to it.
///
/// Every operation (slice, trim, replace, join, case change, ...) keeps the mark, so that the rendered prompt can be
/// cut into parts that may hold control tokens and parts that may not. The marks are stored as the positions where they
/// change, so a string from one source costs no more than its bytes.
///
/// Invariants: 1. borders_ is strictly increasing, each in (0, size). 2. Bytes before the first border have the mark
/// starts_as_data_, and each border toggles it.
class Text {
 public:
  Text() = default;
  Text(std::string bytes, bool is_data) : bytes_(std::move(bytes)), starts_as_data_(is_data) {}

  std::string_view view() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  /// Whether any byte came from data.
  bool has_data() const { return !bytes_.empty() && (starts_as_data_ || !borders_.empty()); }
  bool is_data_at(size_t byte) const;
  /// Bytes that the string occupies, marks included.
  size_t cost() const { return bytes_.size() + borders_.size() * sizeof(size_t); }

  void append(std::string_view bytes, bool is_data);
  void append(const Text& other) { append(other, 0, other.size()); }
  /// Appends bytes [begin, end) of another string with their marks.
  void append(const Text& other, size_t begin, size_t end);
  /// Bytes [begin, end) with their marks.
  Text slice(size_t begin, size_t end) const;
  /// Calls visit(piece, is_data) for each longest run of one mark, in order.
  void for_each_run(FunctionRef<void(std::string_view, bool)> visit) const;

 private:
  bool ends_as_data() const { return starts_as_data_ != (borders_.size() % 2 == 1); }

  std::string bytes_;
  bool starts_as_data_ = false;
  std::vector<size_t> borders_;
};

/// Strings are shared by values and never change once shared.
using TextPtr = std::shared_ptr<Text>;

inline TextPtr make_text(std::string bytes, bool is_data = false) {
  return std::make_shared<Text>(std::move(bytes), is_data);
}
inline TextPtr make_text(Text text) {
  return std::make_shared<Text>(std::move(text));
}

/// Reads a string character by character (code points; a byte that is no UTF-8 counts as one character), with marks.
class CharReader {
 public:
  explicit CharReader(const Text& text) : text_(text) {}

  bool done() const { return begin_ >= text_.size(); }
  /// The character at the current position.
  uint32_t code_point() const;
  /// Byte range of the character at the current position.
  size_t begin() const { return begin_; }
  size_t end() const;
  bool is_data() const { return text_.is_data_at(begin_); }
  void advance() { begin_ = end(); }

 private:
  const Text& text_;
  size_t begin_ = 0;
};

/// Number of characters.
size_t count_chars(std::string_view text);
/// Byte offset of character `index`, or the size of the string when it has no more than `index` characters.
size_t char_offset(std::string_view text, size_t index);

/// Offset of the first occurrence of `part` at or after `from`, in linear time; npos when there is none.
size_t find_bytes(std::string_view text, std::string_view part, size_t from = 0);
/// Offset of the last occurrence of `part`, in linear time; npos when there is none.
size_t find_last_bytes(std::string_view text, std::string_view part);

}  // namespace mneme::jinja
