#include <algorithm>
#include <unordered_map>

#include "model/chat/jinja/filters.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {
namespace {

/// Whether `value` passes the test that args[first] names, with the arguments after it; without a name, whether it is
/// true.
bool passes(Runtime& runtime, const Value& value, const CallArgs& args, size_t first) {
  if (args.positional.size() <= first) return value.truthy();
  const Value& name = args.positional[first];
  if (!name.is_string()) runtime.fail("the name of a test is a string, got {}", name.type_name());
  const Test test = find_test(name.as_view());
  if (test == nullptr) runtime.fail_unsupported("no test named '{}'", name.as_view());
  const auto rest = args.positional.begin() + static_cast<std::ptrdiff_t>(first) + 1;
  return test(runtime, value, {{rest, args.positional.end()}, args.named});
}

template <bool kKeep>
Value select_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  std::vector<Value> kept;
  if (!value.truthy()) return runtime.make_list({});  // none counts as empty here, too.
  for (const Value& item : elements(runtime, value)) {
    runtime.charge(kBytesPerStep);
    if (passes(runtime, item, args, 0) == kKeep) kept.push_back(item);
  }
  return runtime.make_list(std::move(kept));
}

template <bool kKeep>
Value select_attribute_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  if (args.positional.empty()) runtime.fail("selectattr and rejectattr need the name of an attribute");
  std::vector<Value> kept;
  if (!value.truthy()) return runtime.make_list({});
  for (const Value& item : elements(runtime, value)) {
    runtime.charge(kBytesPerStep);
    if (passes(runtime, attribute_path(runtime, item, args.positional[0]), args, 1) == kKeep) kept.push_back(item);
  }
  return runtime.make_list(std::move(kept));
}

/// `map(attribute='x', default=y)` or `map('filter', arguments...)`.
Value map_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  if (!value.truthy()) return runtime.make_list({});
  std::vector<Value> items = elements(runtime, value);
  if (args.positional.empty()) {
    const BoundArgs bound(runtime, "map", args, {"attribute", "default"});
    for (Value& item : items) {
      runtime.charge(kBytesPerStep);
      item = attribute_path(runtime, item, bound.required(0));
      if (item.is_undefined() && bound.has(1)) item = bound.required(1);
    }
    return runtime.make_list(std::move(items));
  }
  const Value& name = args.positional[0];
  if (!name.is_string()) runtime.fail("map: the name of a filter is a string, got {}", name.type_name());
  const Filter filter = find_filter(name.as_view());
  if (filter == nullptr) runtime.fail_unsupported("no filter named '{}'", name.as_view());
  const auto level = runtime.enter_evaluation();  // The filter may be map itself.
  const CallArgs rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  for (Value& item : items) {
    runtime.charge(kBytesPerStep);
    item = filter(runtime, item, rest);
  }
  return runtime.make_list(std::move(items));
}

Value default_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "default", args, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (bound.flag(1) && !value.truthy());
  return missing ? bound.value_or(0, "") : value;
}

Value length_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "length", args, {});
  const auto length = length_of(runtime, value);
  if (!length) runtime.fail("a {} has no length", value.type_name());
  return *length;
}

Value items_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "items", args, {});
  if (value.is_undefined()) return runtime.make_list({});
  if (!value.is_dict()) runtime.fail("items needs a mapping, got {}", value.type_name());
  CallArgs none;
  return *value.as_dict().call_method(runtime, "items", none);
}

Value list_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "list", args, {});
  return runtime.make_list(elements(runtime, value));
}

template <bool kLast>
Value end_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, kLast ? "last" : "first", args, {});
  if (value.is_string() || value.is_list()) {
    return value.truthy() ? get_item(runtime, value, kLast ? -1 : 0) : Value(Undefined{});
  }
  const std::vector<Value> items = elements(runtime, value);
  if (items.empty()) return Undefined{};
  return kLast ? items.back() : items.front();
}

Value reverse_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "reverse", args, {});
  if (value.is_string()) return get_slice(runtime, value, nullptr, nullptr, -1);
  std::vector<Value> items = elements(runtime, value);
  std::reverse(items.begin(), items.end());
  return runtime.make_list(std::move(items));
}

/// Items with the keys they are ordered by.
using Keyed = std::vector<std::pair<std::vector<Value>, Value>>;

std::vector<Value> sorted(Runtime& runtime, Keyed keyed, bool reverse) {
  const auto before = [&](const auto& left, const auto& right) {
    const auto& a = (reverse ? right : left).first;
    const auto& b = (reverse ? left : right).first;
    for (size_t i = 0; i < a.size(); ++i) {
      if (less(runtime, a[i], b[i])) return true;
      if (less(runtime, b[i], a[i])) return false;
    }
    return false;
  };
  std::stable_sort(keyed.begin(), keyed.end(), before);
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return items;
}

/// Keys that `attribute` (several separated by commas, or null for the item itself) gives for an item.
std::vector<Value> keys_of(Runtime& runtime, const Value& item, const Value* attribute, bool case_sensitive) {
  if (attribute == nullptr || attribute->is_none()) return {sort_key(runtime, item, case_sensitive)};
  if (!attribute->is_string()) return {sort_key(runtime, attribute_path(runtime, item, *attribute), case_sensitive)};
  std::vector<Value> keys;
  const Text comma(",", false);
  for (const Value& path : split(runtime, *attribute->as_text(), &comma, -1)) {
    keys.push_back(sort_key(runtime, attribute_path(runtime, item, path), case_sensitive));
  }
  return keys;
}

Value sort_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "sort", args, {"reverse", "case_sensitive", "attribute"});
  const Value* attribute = bound.has(2) ? &bound.required(2) : nullptr;
  Keyed keyed;
  for (Value& item : elements(runtime, value)) {
    keyed.emplace_back(keys_of(runtime, item, attribute, bound.flag(1)), std::move(item));
  }
  return runtime.make_list(sorted(runtime, std::move(keyed), bound.flag(0)));
}

Value dictsort_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "dictsort", args, {"case_sensitive", "by", "reverse"});
  if (!value.is_dict()) runtime.fail("dictsort needs a mapping, got {}", value.type_name());
  const std::string_view by = bound.has(1) ? bound.text(1)->view() : "key";
  if (by != "key" && by != "value") runtime.fail("dictsort: by is 'key' or 'value', got '{}'", by);
  Keyed keyed;
  for (const auto& [key, item] : value.as_dict().entries()) {
    keyed.emplace_back(std::vector<Value>{sort_key(runtime, by == "key" ? key : item, bound.flag(0))},
                       runtime.make_list({key, item}, true));
  }
  return runtime.make_list(sorted(runtime, std::move(keyed), bound.flag(2)));
}

Value unique_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "unique", args, {"case_sensitive", "attribute"});
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : elements(runtime, value)) {
    const Value selected = bound.has(1) ? attribute_path(runtime, item, bound.required(1)) : item;
    const Value key = sort_key(runtime, selected, bound.flag(0));
    if (!Dict::is_key(key)) runtime.fail("unique does not work on {}", key.type_name());
    if (seen.find(key) != nullptr) continue;
    runtime.charge_values(3);
    seen.set(key, nullptr);
    kept.push_back(item);
  }
  return runtime.make_list(std::move(kept));
}

template <bool kLargest>
Value extreme_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, kLargest ? "max" : "min", args, {"case_sensitive", "attribute"});
  const std::vector<Value> items = elements(runtime, value);
  if (items.empty()) return Undefined{};
  const auto key_of = [&](const Value& item) {
    return sort_key(runtime, bound.has(1) ? attribute_path(runtime, item, bound.required(1)) : item, bound.flag(0));
  };
  size_t best = 0;
  Value best_key = key_of(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = key_of(items[i]);
    if (kLargest ? less(runtime, best_key, key) : less(runtime, key, best_key)) {
      best = i;
      best_key = std::move(key);
    }
  }
  return items[best];
}

Value sum_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "sum", args, {"attribute", "start"});
  const bool by_attribute = bound.has(0) && !bound.required(0).is_none();
  Value total = bound.value_or(1, 0);
  for (const Value& item : elements(runtime, value)) {
    const Value part = by_attribute ? attribute_path(runtime, item, bound.required(0)) : item;
    total = apply(runtime, BinaryOp::kAdd, std::move(total), part);
  }
  return total;
}

/// Lists of `linecount` items each; the last is filled up when a filling is given.
Value batch_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "batch", args, {"linecount", "fill_with"});
  bound.required(0);
  const size_t size = bound.count_or(0, 0, kMaxRange);
  if (size == 0) runtime.fail("batch: linecount must be positive");
  std::vector<Value> batches;
  std::vector<Value> current;
  for (const Value& item : elements(runtime, value)) {
    current.push_back(item);
    if (current.size() == size) batches.emplace_back(runtime.make_list(std::exchange(current, {})));
  }
  if (!current.empty()) {
    if (bound.has(1) && !bound.required(1).is_none()) {
      runtime.charge_values(size);
      current.resize(size, bound.required(1));
    }
    batches.emplace_back(runtime.make_list(std::move(current)));
  }
  return runtime.make_list(std::move(batches));
}

/// `slices` lists of nearly equal length; the longer ones come first, the others get the filling.
Value slice_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "slice", args, {"slices", "fill_with"});
  bound.required(0);
  const size_t slices = bound.count_or(0, 0, kMaxRange);
  if (slices == 0) runtime.fail("slice: slices must be positive");
  const std::vector<Value> items = elements(runtime, value);
  const size_t longer = items.size() % slices;
  std::vector<Value> out;
  size_t begin = 0;
  for (size_t i = 0; i < slices; ++i) {
    const size_t end = begin + items.size() / slices + (i < longer ? 1 : 0);
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(begin),
                            items.begin() + static_cast<std::ptrdiff_t>(end));
    if (bound.has(1) && !bound.required(1).is_none() && i >= longer) part.push_back(bound.required(1));
    out.emplace_back(runtime.make_list(std::move(part)));
    begin = end;
  }
  return runtime.make_list(std::move(out));
}

const std::unordered_map<std::string_view, Filter> kFilters = {
    {"batch", batch_filter},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort_filter},
    {"first", end_filter<false>},
    {"items", items_filter},
    {"last", end_filter<true>},
    {"length", length_filter},
    {"list", list_filter},
    {"map", map_filter},
    {"max", extreme_filter<true>},
    {"min", extreme_filter<false>},
    {"reject", select_filter<false>},
    {"rejectattr", select_attribute_filter<false>},
    {"reverse", reverse_filter},
    {"select", select_filter<true>},
    {"selectattr", select_attribute_filter<true>},
    {"slice", slice_filter},
    {"sort", sort_filter},
    {"sum", sum_filter},
    {"unique", unique_filter},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace mneme::jinja
