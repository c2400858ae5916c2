#include "model/chat/jinja/string_methods.h"

#include <algorithm>
#include <unordered_map>

#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/string_format.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {
namespace {

using Method = Value (*)(Runtime&, const Text&, const CallArgs&);

void expect_none(Runtime& runtime, std::string_view name, const CallArgs& args) {
  BoundArgs(runtime, name, args, {});
}

template <Case kTo>
Value case_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  expect_none(runtime, "case method", args);
  return change_case(runtime, text, kTo);
}

template <bool kLeft, bool kRight>
Value strip_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "strip", args, {"chars"});
  return strip(runtime, text, bound.text(0), kLeft, kRight);
}

Value split_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "split", args, {"sep", "maxsplit"});
  return runtime.make_list(split(runtime, text, bound.text(0), bound.int_or(1, -1)));
}

Value rsplit_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "rsplit", args, {"sep", "maxsplit"});
  return runtime.make_list(split_from_right(runtime, text, bound.text(0), bound.int_or(1, -1)));
}

Value splitlines_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  expect_none(runtime, "splitlines", args);
  return runtime.make_list(split_lines(runtime, text));
}

const Text& required_text(Runtime& runtime, const BoundArgs& bound, size_t i) {
  const Value& value = bound.required(i);
  if (value.is_undefined()) runtime.fail_undefined(value.as_undefined());
  if (!value.is_string()) runtime.fail("expected a string argument, got {}", value.type_name());
  return *value.as_text();
}

/// startswith and endswith take one string or a tuple of them.
template <bool kAtEnd>
Value affix_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, kAtEnd ? "endswith" : "startswith", args, {"affix"});
  const Value& affix = bound.required(0);
  const auto matches = [&](const Value& value) {
    if (!value.is_string()) runtime.fail("expected a string to look for, got {}", value.type_name());
    return kAtEnd ? text.view().ends_with(value.as_view()) : text.view().starts_with(value.as_view());
  };
  if (!affix.is_list()) return matches(affix);
  const auto& choices = affix.as_list().items;
  return std::any_of(choices.begin(), choices.end(), matches);
}

template <bool kAtEnd>
Value remove_affix_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, kAtEnd ? "removesuffix" : "removeprefix", args, {"affix"});
  const Text& affix = required_text(runtime, bound, 0);
  runtime.charge(text.cost());
  const bool found = kAtEnd ? text.view().ends_with(affix.view()) : text.view().starts_with(affix.view());
  if (!found) return text;
  return kAtEnd ? text.slice(0, text.size() - affix.size()) : text.slice(affix.size(), text.size());
}

Value replace_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "replace", args, {"old", "new", "count"});
  return replace(runtime, text, required_text(runtime, bound, 0), required_text(runtime, bound, 1),
                 bound.int_or(2, -1));
}

Value join_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "join", args, {"iterable"});
  const std::vector<Value> parts = elements(runtime, bound.required(0));
  for (const Value& part : parts) {
    if (!part.is_string()) runtime.fail("join: expected strings, got {}", part.type_name());
  }
  return join(runtime, parts, text);
}

/// Position in characters, or -1; bounds are characters too.
template <bool kFromRight>
Value find_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, kFromRight ? "rfind" : "find", args, {"sub", "start", "end"});
  const Text& sub = required_text(runtime, bound, 0);
  runtime.charge(text.size() * 2);
  const auto length = static_cast<Int>(count_chars(text.view()));
  const auto place = [&](size_t argument, Int fallback) {
    const Int at = bound.int_or(argument, fallback);
    return std::clamp(at < 0 ? std::max(at, -length) + length : at, Int{0}, length);
  };
  const Int start = place(1, 0);
  if (bound.int_or(1, 0) > length || place(2, length) < start) return -1;
  const size_t begin = char_offset(text.view(), static_cast<size_t>(start));
  const size_t end = char_offset(text.view(), static_cast<size_t>(place(2, length)));
  const std::string_view part = text.view().substr(begin, end - begin);
  const size_t found = kFromRight ? find_last_bytes(part, sub.view()) : find_bytes(part, sub.view());
  if (found == std::string_view::npos) return -1;
  return start + static_cast<Int>(count_chars(part.substr(0, found)));
}

template <bool kFromRight>
Value index_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  Value found = find_method<kFromRight>(runtime, text, args);
  if (found.as_int() < 0) runtime.fail("index: substring not found");
  return found;
}

Value count_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "count", args, {"sub"});
  const Text& sub = required_text(runtime, bound, 0);
  runtime.charge(text.size());
  if (sub.empty()) return count_chars(text.view()) + 1;
  size_t count = 0;
  for (size_t at = find_bytes(text.view(), sub.view()); at != std::string_view::npos; ++count) {
    at = find_bytes(text.view(), sub.view(), at + sub.size());
  }
  return count;
}

/// The three parts around the first (or last) separator, as a tuple.
template <bool kFromRight>
Value partition_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "partition", args, {"sep"});
  const Text& separator = required_text(runtime, bound, 0);
  if (separator.empty()) runtime.fail("partition: empty separator");
  runtime.charge(text.cost());
  const size_t found =
      kFromRight ? find_last_bytes(text.view(), separator.view()) : find_bytes(text.view(), separator.view());
  std::vector<Value> parts;
  if (found != std::string_view::npos) {
    parts = {text.slice(0, found), separator, text.slice(found + separator.size(), text.size())};
  } else if (kFromRight) {
    parts = {"", "", text};
  } else {
    parts = {text, "", ""};
  }
  return runtime.make_list(std::move(parts), true);
}

template <char kAlign>
Value pad_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "padding", args, {"width", "fillchar"});
  bound.required(0);
  const Text space(" ", false);
  const Text* fill = bound.text(1);
  return pad(runtime, text, bound.count_or(0, 0), kAlign, fill == nullptr ? space : *fill);
}

Value zfill_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  const BoundArgs bound(runtime, "zfill", args, {"width"});
  bound.required(0);
  const size_t width = bound.count_or(0, 0);
  const bool has_sign = !text.empty() && (text.view()[0] == '-' || text.view()[0] == '+');
  Text out = text.slice(0, has_sign ? 1 : 0);
  out.append(
      pad(runtime, text.slice(out.size(), text.size()), width - std::min(width, out.size()), '>', Text("0", false)));
  return out;
}

Value format_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  return brace_format(runtime, text, args);
}

template <bool (*kHolds)(uint32_t)>
Value all_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  expect_none(runtime, "character test", args);
  runtime.charge(text.size());
  for (CharReader reader(text); !reader.done(); reader.advance()) {
    if (!kHolds(reader.code_point())) return false;
  }
  return !text.empty();
}

bool is_letter_or_digit(uint32_t code_point) {
  return is_letter(code_point) || is_digit(code_point);
}

/// Whether there is a letter with case, and changing the case would change nothing.
template <Case kTo>
Value is_case_method(Runtime& runtime, const Text& text, const CallArgs& args) {
  expect_none(runtime, "case test", args);
  constexpr Case kOther = kTo == Case::kUpper ? Case::kLower : Case::kUpper;
  return change_case(runtime, text, kTo).view() == text.view() &&
         change_case(runtime, text, kOther).view() != text.view();
}

const std::unordered_map<std::string_view, Method> kMethods = {
    {"capitalize", case_method<Case::kCapitalized>},
    {"center", pad_method<'^'>},
    {"count", count_method},
    {"endswith", affix_method<true>},
    {"find", find_method<false>},
    {"format", format_method},
    {"index", index_method<false>},
    {"isalnum", all_method<is_letter_or_digit>},
    {"isalpha", all_method<is_letter>},
    {"isdigit", all_method<is_digit>},
    {"islower", is_case_method<Case::kLower>},
    {"isnumeric", all_method<is_digit>},
    {"isspace", all_method<is_space>},
    {"isupper", is_case_method<Case::kUpper>},
    {"join", join_method},
    {"ljust", pad_method<'<'>},
    {"lower", case_method<Case::kLower>},
    {"lstrip", strip_method<true, false>},
    {"partition", partition_method<false>},
    {"removeprefix", remove_affix_method<false>},
    {"removesuffix", remove_affix_method<true>},
    {"replace", replace_method},
    {"rfind", find_method<true>},
    {"rindex", index_method<true>},
    {"rjust", pad_method<'>'>},
    {"rpartition", partition_method<true>},
    {"rsplit", rsplit_method},
    {"rstrip", strip_method<false, true>},
    {"split", split_method},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<false>},
    {"strip", strip_method<true, true>},
    {"swapcase", case_method<Case::kSwapped>},
    {"title", case_method<Case::kTitle>},
    {"upper", case_method<Case::kUpper>},
    {"zfill", zfill_method},
};

}  // namespace

std::optional<Value> call_string_method(Runtime& runtime, const Text& text, std::string_view name,
                                        const CallArgs& args) {
  const auto method = kMethods.find(name);
  if (method == kMethods.end()) return std::nullopt;
  return method->second(runtime, text, args);
}

}  // namespace mneme::jinja
