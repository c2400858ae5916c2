#include <algorithm>

#include "model/chat/jinja/operators.h"

namespace mneme::jinja {
namespace {

const Value& required_key(Runtime& runtime, const BoundArgs& bound) {
  const Value& key = bound.required(0);
  if (!Dict::is_key(key)) runtime.fail("a {} cannot be a key", key.type_name());
  return key;
}

/// Takes pairs from another dict and from named arguments.
void update(Runtime& runtime, Dict& dict, const CallArgs& args) {
  if (args.positional.size() > 1) runtime.fail("update takes one mapping, got {}", args.positional.size());
  for (const Value& source : args.positional) {
    if (!source.is_dict()) runtime.fail("update needs a mapping, got {}", source.type_name());
    const std::vector<Dict::Entry> entries = source.as_dict().entries();
    runtime.charge_values(2 * entries.size());
    for (const auto& [key, value] : entries) dict.set(key, value);
  }
  for (const auto& [name, value] : args.named) dict.set(Value(std::string_view(name)), value);
}

Value pop_item(Runtime& runtime, List& list, const CallArgs& args) {
  const BoundArgs bound(runtime, "pop", args, {"index"});
  const auto size = static_cast<Int>(list.items.size());
  Int index = bound.int_or(0, -1);
  if (index < 0) index += size;
  if (index < 0 || index >= size) runtime.fail("pop: index out of range for a list of {}", list.items.size());
  runtime.charge_values(list.items.size());
  const auto place = list.items.begin() + static_cast<std::ptrdiff_t>(index);
  Value value = *place;
  list.items.erase(place);
  return value;
}

void insert_item(Runtime& runtime, List& list, const CallArgs& args) {
  const BoundArgs bound(runtime, "insert", args, {"index", "object"});
  bound.required(0);
  const auto size = static_cast<Int>(list.items.size());
  Int index = bound.int_or(0, 0);
  if (index < 0) index = std::max(index, -size) + size;
  runtime.charge_values(list.items.size() + 1);
  list.items.insert(list.items.begin() + static_cast<std::ptrdiff_t>(std::min(index, size)), bound.required(1));
}

Value index_of(Runtime& runtime, const List& list, const CallArgs& args) {
  const BoundArgs bound(runtime, "index", args, {"value"});
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (equals(runtime, list.items[i], bound.required(0))) return i;
  }
  runtime.fail("index: the value is not in the list");
}

Value count_of(Runtime& runtime, const List& list, const CallArgs& args) {
  const BoundArgs bound(runtime, "count", args, {"value"});
  const Value& wanted = bound.required(0);
  return static_cast<size_t>(std::count_if(list.items.begin(), list.items.end(),
                                           [&](const Value& item) { return equals(runtime, item, wanted); }));
}

}  // namespace

std::optional<Value> List::call_method(Runtime& runtime, std::string_view name, CallArgs& args) {
  if (name == "index") return index_of(runtime, *this, args);
  if (name == "count") return count_of(runtime, *this, args);
  if (is_tuple) return std::nullopt;
  if (name == "append") {
    const BoundArgs bound(runtime, "append", args, {"object"});
    runtime.charge_values(1);
    items.push_back(bound.required(0));
    return nullptr;
  }
  if (name == "extend") {
    const BoundArgs bound(runtime, "extend", args, {"iterable"});
    const std::vector<Value> more = elements(runtime, bound.required(0));
    items.insert(items.end(), more.begin(), more.end());
    return nullptr;
  }
  if (name == "insert") {
    insert_item(runtime, *this, args);
    return nullptr;
  }
  if (name == "pop") return pop_item(runtime, *this, args);
  if (name == "copy") {
    BoundArgs(runtime, "copy", args, {});
    return runtime.make_list(items);
  }
  if (name == "clear" || name == "reverse") {
    BoundArgs(runtime, name, args, {});
    runtime.charge_values(items.size());
    if (name == "clear") {
      items.clear();
    } else {
      std::reverse(items.begin(), items.end());
    }
    return nullptr;
  }
  return std::nullopt;
}

std::optional<Value> Dict::call_method(Runtime& runtime, std::string_view name, CallArgs& args) {
  if (name == "items" || name == "keys" || name == "values") {
    BoundArgs(runtime, name, args, {});
    std::vector<Value> list;
    for (const auto& [key, value] : entries_) {
      if (name == "items") {
        list.emplace_back(runtime.make_list({key, value}, true));
      } else {
        list.push_back(name == "keys" ? key : value);
      }
    }
    return runtime.make_list(std::move(list));
  }
  if (name == "get") {
    const BoundArgs bound(runtime, "get", args, {"key", "default"});
    const Value* found = find(required_key(runtime, bound));
    return found != nullptr ? *found : bound.value_or(1, nullptr);
  }
  if (name == "pop") {
    const BoundArgs bound(runtime, "pop", args, {"key", "default"});
    const Value& key = required_key(runtime, bound);
    const Value* found = find(key);
    if (found == nullptr && !bound.has(1)) runtime.fail("pop: no such key");
    Value value = found != nullptr ? *found : bound.required(1);
    runtime.charge_values(2 * entries_.size());
    erase(key);
    return value;
  }
  if (name == "setdefault") {
    const BoundArgs bound(runtime, "setdefault", args, {"key", "default"});
    const Value& key = required_key(runtime, bound);
    if (const Value* found = find(key)) return *found;
    runtime.charge_values(2);
    set(key, bound.value_or(1, nullptr));
    return *find(key);
  }
  if (name == "update") {
    update(runtime, *this, args);
    return nullptr;
  }
  if (name == "copy") {
    BoundArgs(runtime, "copy", args, {});
    auto* dict = runtime.make<Dict>();
    for (const auto& [key, value] : entries_) {
      runtime.charge_values(2);
      dict->set(key, value);
    }
    return dict;
  }
  if (name == "clear") {
    BoundArgs(runtime, "clear", args, {});
    clear();
    return nullptr;
  }
  return std::nullopt;
}

}  // namespace mneme::jinja
