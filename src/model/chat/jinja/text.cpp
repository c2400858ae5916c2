#include "model/chat/jinja/text.h"

#include <algorithm>
#include <cstring>

#include "base/utf8.h"

namespace mneme::jinja {

bool Text::is_data_at(size_t byte) const {
  const auto toggles = std::upper_bound(borders_.begin(), borders_.end(), byte) - borders_.begin();
  return starts_as_data_ != (toggles % 2 == 1);
}

void Text::append(std::string_view bytes, bool is_data) {
  if (bytes.empty()) return;
  if (bytes_.empty()) {
    starts_as_data_ = is_data;
  } else if (ends_as_data() != is_data) {
    borders_.push_back(bytes_.size());
  }
  bytes_.append(bytes);
}

void Text::append(const Text& other, size_t begin, size_t end) {
  const auto first = std::upper_bound(other.borders_.begin(), other.borders_.end(), begin);
  bool is_data = other.is_data_at(begin);
  for (auto border = first; border != other.borders_.end() && *border < end; ++border) {
    append(other.view().substr(begin, *border - begin), is_data);
    begin = *border;
    is_data = !is_data;
  }
  append(other.view().substr(begin, end - begin), is_data);
}

Text Text::slice(size_t begin, size_t end) const {
  Text part;
  if (begin < end) part.append(*this, begin, end);
  return part;
}

void Text::for_each_run(FunctionRef<void(std::string_view, bool)> visit) const {
  size_t begin = 0;
  bool is_data = starts_as_data_;
  for (const size_t border : borders_) {
    visit(view().substr(begin, border - begin), is_data);
    begin = border;
    is_data = !is_data;
  }
  if (begin < size()) visit(view().substr(begin), is_data);
}

uint32_t CharReader::code_point() const {
  return decode_utf8(text_.view().substr(begin_)).code_point;
}

size_t CharReader::end() const {
  return begin_ + decode_utf8(text_.view().substr(begin_)).length;
}

size_t count_chars(std::string_view text) {
  size_t count = 0;
  for (size_t position = 0; position < text.size(); ++count) position += decode_utf8(text.substr(position)).length;
  return count;
}

size_t char_offset(std::string_view text, size_t index) {
  size_t position = 0;
  for (; index > 0 && position < text.size(); --index) position += decode_utf8(text.substr(position)).length;
  return position;
}

size_t find_bytes(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t find_last_bytes(std::string_view text, std::string_view part) {
  const std::string backwards(text.rbegin(), text.rend());
  const size_t found = find_bytes(backwards, std::string(part.rbegin(), part.rend()));
  return found == std::string_view::npos ? found : text.size() - found - part.size();
}

}  // namespace mneme::jinja
