#include <algorithm>
#include <unordered_map>

#include "model/chat/jinja/filters.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/string_format.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {
namespace {

template <Case kTo>
Value case_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "case filter", args, {});
  return change_case(runtime, *to_text(runtime, value), kTo);
}

Value center_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "center", args, {"width"});
  return pad(runtime, *to_text(runtime, value), bound.count_or(0, 80), '^', Text(" ", false));
}

Value escape_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "escape", args, {});
  return escape_html(runtime, *to_text(runtime, value));
}

Value format_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  if (!args.named.empty() && !args.positional.empty()) {
    runtime.fail("format takes arguments by position or by name, not both");
  }
  Value arguments = runtime.make_list(args.positional, true);
  if (!args.named.empty()) {
    auto* names = runtime.make<Dict>();
    for (const auto& [name, argument] : args.named) names->set(Value(std::string_view(name)), argument);
    arguments = names;
  }
  return percent_format(runtime, *to_text(runtime, value), arguments);
}

/// Puts the indentation before each line but the first; before empty lines only with `blank`.
Value indent_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "indent", args, {"width", "first", "blank"});
  Text indentation(" ", false);
  if (bound.has(0) && bound.required(0).is_string()) {
    indentation = *bound.text(0);
  } else {
    indentation = pad(runtime, Text(), bound.count_or(0, 4), '<', Text(" ", false));
  }
  Text text = *to_text(runtime, value);
  text.append("\n", false);  // An empty text has one line, and a final line end keeps an empty line after it.
  Text out;
  bool first_line = true;
  for (const Value& line : split_lines(runtime, text)) {
    if (!first_line) out.append("\n", false);
    const bool indents = first_line ? bound.flag(1) : bound.flag(2) || line.truthy();
    if (indents) out.append(indentation);
    runtime.charge(indentation.cost());
    out.append(*line.as_text());
    first_line = false;
  }
  return out;
}

Value join_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "join", args, {"d", "attribute"});
  std::vector<Value> parts = elements(runtime, value);
  if (bound.has(1)) {
    for (Value& part : parts) part = attribute_path(runtime, part, bound.required(1));
  }
  return join(runtime, parts, *to_text(runtime, bound.value_or(0, "")));
}

Value replace_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "replace", args, {"old", "new", "count"});
  const Int limit = bound.has(2) && bound.required(2).is_none() ? -1 : bound.int_or(2, -1);
  return replace(runtime, *to_text(runtime, value), *to_text(runtime, bound.required(0)),
                 *to_text(runtime, bound.required(1)), limit);
}

/// There is no automatic escaping, so that marking a text as safe only makes it a text.
Value safe_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "safe", args, {});
  return to_text(runtime, value);
}

Value string_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "string", args, {});
  return to_text(runtime, value);
}

Value tojson_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonLayout layout;
  layout.ascii_only = bound.flag(0);
  layout.sort_keys = bound.flag(3);
  if (bound.has(1) && !bound.required(1).is_none()) {
    layout.multi_line = true;
    layout.item_separator.assign(1, ',');
    constexpr size_t kMostIndent = 100;
    layout.indent = bound.required(1).is_string() ? std::string(bound.text(1)->view().substr(0, kMostIndent))
                                                  : std::string(bound.count_or(1, 0, kMostIndent), ' ');
  }
  if (bound.has(2) && !bound.required(2).is_none()) {
    const std::vector<Value> pair = elements(runtime, bound.required(2));
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      runtime.fail("tojson: separators are two strings");
    }
    layout.item_separator = pair[0].as_view();
    layout.key_separator = pair[1].as_view();
  }
  return to_json_text(runtime, value, layout);
}

Value trim_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "trim", args, {"chars"});
  return strip(runtime, *to_text(runtime, value), bound.text(0), true, true);
}

/// Cuts to `length` characters with `end` in place of the rest, at a word unless `killwords`; texts that are longer by
/// no more than `leeway` stay whole.
Value truncate_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "truncate", args, {"length", "killwords", "end", "leeway"});
  const TextPtr text = to_text(runtime, value);
  const size_t length = bound.count_or(0, 255, UINT32_MAX);
  const TextPtr end = to_text(runtime, bound.value_or(2, "..."));
  const size_t end_length = count_chars(end->view());
  if (length < end_length) runtime.fail("truncate: length {} is below that of the end, {}", length, end_length);
  runtime.charge(text->cost());
  if (count_chars(text->view()) <= length + bound.count_or(3, 5, UINT32_MAX)) return text;
  Text out = text->slice(0, char_offset(text->view(), length - end_length));
  if (!bound.flag(1)) {
    const size_t space = out.view().rfind(' ');
    if (space != std::string_view::npos) out = out.slice(0, space);
  }
  out.append(*end);
  return out;
}

Value wordcount_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "wordcount", args, {});
  const TextPtr text = to_text(runtime, value);
  runtime.charge(text->size());
  size_t count = 0;
  bool inside = false;
  for (CharReader reader(*text); !reader.done(); reader.advance()) {
    const uint32_t c = reader.code_point();
    const bool in_word = is_letter(c) || is_digit(c) || c == '_';
    if (in_word && !inside) ++count;
    inside = in_word;
  }
  return count;
}

const std::unordered_map<std::string_view, Filter> kFilters = {
    {"capitalize", case_filter<Case::kCapitalized>},
    {"center", center_filter},
    {"e", escape_filter},
    {"escape", escape_filter},
    {"forceescape", escape_filter},
    {"format", format_filter},
    {"indent", indent_filter},
    {"join", join_filter},
    {"lower", case_filter<Case::kLower>},
    {"replace", replace_filter},
    {"safe", safe_filter},
    {"string", string_filter},
    {"title", case_filter<Case::kWords>},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"truncate", truncate_filter},
    {"upper", case_filter<Case::kUpper>},
    {"wordcount", wordcount_filter},
};

}  // namespace

Filter find_text_filter(std::string_view name) {
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace mneme::jinja
