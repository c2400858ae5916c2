#include <algorithm>

#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/print.h"

namespace mneme::jinja {
namespace {

/// Position of a Python index in a sequence of `size` elements; nothing when it is outside.
std::optional<size_t> position(Int index, size_t size) {
  const auto n = static_cast<Int>(size);
  if (index < 0) index += n;
  if (index < 0 || index >= n) return std::nullopt;
  return static_cast<size_t>(index);
}

/// The positions first, first + by, ... before last, as a slice of Python selects them.
struct SliceRange {
  Int first, last, by;

  bool more(Int at) const { return by > 0 ? at < last : at > last; }
};

SliceRange slice_range(Runtime& runtime, size_t size, const Value& start, const Value& stop, const Value& step) {
  const auto bound = [&](const Value& value, Int fallback) {
    if (value.is_none()) return fallback;
    if (!value.is_integral()) runtime.fail("a slice needs whole numbers, got {}", value.type_name());
    return value.as_int();
  };
  const Int stride = bound(step, 1);
  if (stride == 0) runtime.fail("a slice cannot have step 0");
  const auto n = static_cast<Int>(size);
  // Steps longer than the sequence select one element at most, whatever their length.
  const Int by = std::clamp(stride, -n - 1, n + 1);
  const Int lowest = by > 0 ? 0 : -1;
  const Int highest = by > 0 ? n : n - 1;
  const auto resolve = [&](const Value& value, Int fallback) {
    Int place = bound(value, fallback);
    if (!value.is_none() && place < 0) place = std::max(place, -n - 1) + n;
    return std::clamp(place, lowest, highest);
  };
  return {resolve(start, by > 0 ? lowest : highest), resolve(stop, by > 0 ? highest : lowest), by};
}

Text slice_text(Runtime& runtime, const Text& text, const Value& start, const Value& stop, const Value& step) {
  runtime.charge(text.cost());
  const SliceRange range = slice_range(runtime, count_chars(text.view()), start, stop, step);
  if (!range.more(range.first)) return {};
  if (range.by == 1) {
    const size_t begin = char_offset(text.view(), static_cast<size_t>(range.first));
    const size_t length = char_offset(text.view().substr(begin), static_cast<size_t>(range.last - range.first));
    return text.slice(begin, begin + length);
  }
  runtime.charge_many(sizeof(size_t), text.size());
  std::vector<size_t> offsets;
  for (CharReader reader(text); !reader.done(); reader.advance()) offsets.push_back(reader.begin());
  offsets.push_back(text.size());
  Text part;
  for (Int at = range.first; range.more(at); at += range.by) {
    const auto i = static_cast<size_t>(at);
    part.append(text, offsets[i], offsets[i + 1]);
  }
  return part;
}

Value character_at(Runtime& runtime, const Text& text, Int index) {
  runtime.charge(text.size());
  const auto found = position(index, count_chars(text.view()));
  if (!found) return Undefined{};
  const size_t begin = char_offset(text.view(), *found);
  return text.slice(begin, begin + char_offset(text.view().substr(begin), 1));
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& object, const std::string& name) {
  if (object.is_undefined()) runtime.fail_undefined(object.as_undefined());
  if (Object* target = object.object()) {
    if (auto value = target->attribute(runtime, name)) return *value;
  }
  return Undefined{&name};
}

Value get_item(Runtime& runtime, const Value& object, const Value& index) {
  if (object.is_undefined()) runtime.fail_undefined(object.as_undefined());
  if (object.is_dict()) {
    const Value* value = Dict::is_key(index) ? object.as_dict().find(index) : nullptr;
    return value == nullptr ? Value(Undefined{}) : *value;
  }
  if (index.is_integral()) {
    if (object.is_string()) return character_at(runtime, *object.as_text(), index.as_int());
    if (object.is_list()) {
      const auto found = position(index.as_int(), object.as_list().items.size());
      return found ? object.as_list().items[*found] : Value(Undefined{});
    }
  }
  if (index.is_string() && object.is_other()) {
    if (auto value = object.as_other().attribute(runtime, index.as_view())) return *value;
  }
  return Undefined{};
}

Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) runtime.fail_undefined(object.as_undefined());
  if (object.is_string()) return slice_text(runtime, *object.as_text(), start, stop, step);
  if (object.is_list()) {
    const List& list = object.as_list();
    runtime.charge_values(list.items.size());
    const SliceRange range = slice_range(runtime, list.items.size(), start, stop, step);
    std::vector<Value> items;
    for (Int at = range.first; range.more(at); at += range.by) items.push_back(list.items[static_cast<size_t>(at)]);
    return runtime.make<List>(std::move(items), list.is_tuple);
  }
  return Undefined{};
}

std::vector<Value> elements(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (value.is_list()) {
    runtime.charge_values(value.as_list().items.size());
    items = value.as_list().items;
  } else if (value.is_string()) {
    for (CharReader reader(*value.as_text()); !reader.done(); reader.advance()) {
      runtime.charge(sizeof(Value) + sizeof(Text));
      items.emplace_back(value.as_text()->slice(reader.begin(), reader.end()));
    }
  } else if (value.is_dict()) {
    runtime.charge_values(value.as_dict().entries().size());
    for (const auto& entry : value.as_dict().entries()) items.push_back(entry.first);
  } else if (!value.is_undefined()) {
    runtime.fail("a {} has no elements to visit", value.type_name());
  }
  return items;
}

bool is_iterable(const Value& value) {
  return value.is_list() || value.is_string() || value.is_dict() || value.is_undefined();
}

std::optional<size_t> length_of(Runtime& runtime, const Value& value) {
  if (value.is_string()) {
    runtime.charge(value.as_text()->size());
    return count_chars(value.as_view());
  }
  if (value.is_list()) return value.as_list().items.size();
  if (value.is_dict()) return value.as_dict().entries().size();
  if (value.is_undefined()) return 0;
  return std::nullopt;
}

}  // namespace mneme::jinja
