#include <algorithm>
#include <cmath>
#include <string>

#include "base/utf8.h"
#include "model/chat/jinja/print.h"

namespace mneme::jinja {
namespace {

void append_utf16_escape(std::string& out, uint32_t code_point) {
  if (code_point >= 0x10000) {
    const uint32_t rest = code_point - 0x10000;
    out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  } else {
    out += fmt::format("\\u{:04x}", code_point);
  }
}

void append_json_string(std::string& out, std::string_view text, bool ascii_only) {
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    switch (c.code_point) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (c.code_point < 0x20 || (ascii_only && c.code_point > 0x7E)) {
          append_utf16_escape(out, c.code_point);
        } else {
          out += text.substr(i, c.length);
        }
    }
    i += c.length;
  }
  out += '"';
}

std::string json_float(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return float_text(number);
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonLayout& layout) : runtime_(runtime), layout_(layout) {}

  Text write_all(const Value& value) {
    write(value, 0);
    return {std::move(out_), has_data_};
  }

 private:
  void write(const Value& value, int depth) {
    if (depth > kMaxValueDepth) runtime_.fail("tojson: nested deeper than {}", kMaxValueDepth);
    runtime_.charge(sizeof(Value));
    if (value.is_string()) {
      write_string(*value.as_text());
    } else if (value.is_list()) {
      write_list(value.as_list(), depth);
    } else if (value.is_dict()) {
      write_dict(value.as_dict(), depth);
    } else if (const auto scalar = scalar_text(value)) {
      out_ += *scalar;
    } else if (value.is_undefined()) {
      runtime_.fail_undefined(value.as_undefined());
    } else {
      runtime_.fail("tojson: a {} is not JSON", value.type_name());
    }
  }

  static std::optional<std::string> scalar_text(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.as_bool() ? "true" : "false";
    if (value.is_int()) return int_text(value.as_int());
    if (value.is_float()) return json_float(value.as_double());
    return std::nullopt;
  }

  void write_string(const Text& text) {
    runtime_.charge(text.cost());
    has_data_ = has_data_ || text.has_data();
    append_json_string(out_, text.view(), layout_.ascii_only);
  }

  void write_key(const Value& key) {
    if (key.is_string()) {
      write_string(*key.as_text());
    } else {
      append_json_string(out_, *scalar_text(key), layout_.ascii_only);
    }
  }

  void new_line(int depth) {
    if (!layout_.multi_line) return;
    runtime_.charge(layout_.indent.size() * static_cast<size_t>(depth));
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += layout_.indent;
  }

  void write_list(const List& list, int depth) {
    if (list.items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += layout_.item_separator;
      new_line(depth + 1);
      write(list.items[i], depth + 1);
    }
    new_line(depth);
    out_ += ']';
  }

  void write_dict(const Dict& dict, int depth) {
    if (dict.entries().empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const Dict::Entry*> entries;
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (layout_.sort_keys) sort_by_key(entries);
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += layout_.item_separator;
      new_line(depth + 1);
      write_key(entries[i]->first);
      out_ += layout_.key_separator;
      write(entries[i]->second, depth + 1);
    }
    new_line(depth);
    out_ += '}';
  }

  void sort_by_key(std::vector<const Dict::Entry*>& entries) {
    for (const auto* entry : entries) {
      if (!entry->first.is_string()) runtime_.fail("tojson: sort_keys needs string keys");
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const auto* a, const auto* b) { return a->first.as_view() < b->first.as_view(); });
  }

  Runtime& runtime_;
  const JsonLayout& layout_;
  std::string out_;
  bool has_data_ = false;
};

Value convert(Runtime& runtime, const Json& json, bool is_data, int depth) {
  if (depth > kMaxValueDepth) runtime.fail("the input is nested deeper than {}", kMaxValueDepth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return Int{json.get<int64_t>()};
    case Json::value_t::number_unsigned:
      return Int{json.get<uint64_t>()};
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return make_text(json.get_ref<const std::string&>(), is_data);
    case Json::value_t::array: {
      auto* list = runtime.make<List>();
      list->items.reserve(json.size());
      for (const Json& item : json) list->items.push_back(convert(runtime, item, is_data, depth + 1));
      return list;
    }
    case Json::value_t::object: {
      auto* dict = runtime.make<Dict>();
      for (const auto& [key, item] : json.items()) {
        dict->set(make_text(key, is_data), convert(runtime, item, is_data, depth + 1));
      }
      return dict;
    }
    default:
      return nullptr;
  }
}

}  // namespace

Text to_json_text(Runtime& runtime, const Value& value, const JsonLayout& layout) {
  return JsonWriter(runtime, layout).write_all(value);
}

Value from_json(Runtime& runtime, const Json& json, bool is_data) {
  return convert(runtime, json, is_data, 0);
}

}  // namespace mneme::jinja
