#include "model/chat/jinja/filters.h"

#include <charconv>
#include <unordered_map>

#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {

Filter find_filter(std::string_view name) {
  if (const Filter filter = find_text_filter(name)) return filter;
  if (const Filter filter = find_sequence_filter(name)) return filter;
  return find_number_filter(name);
}

Value attribute_path(Runtime& runtime, const Value& value, const Value& path) {
  if (!path.is_string()) return get_item(runtime, value, path);
  Value current = value;
  std::string_view rest = path.as_view();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int64_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = error == std::errc() && end == part.data() + part.size() && index >= 0;
    runtime.charge(kBytesPerStep);
    current = get_item(runtime, current, is_index ? Value(Int{index}) : Value(part));
    if (dot == rest.npos) return current;
    rest.remove_prefix(dot + 1);
  }
}

Value sort_key(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return change_case(runtime, *value.as_text(), Case::kLower);
}

}  // namespace mneme::jinja
