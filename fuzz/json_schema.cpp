// Any JSON as a schema, and any way through its grammar. The input is the schema up to a zero byte, then the walk,
// which goes to the end of the value when its bytes are used up. What the grammar lets through must be JSON that fits
// the schema.
#include "engine/grammar/json_schema.h"

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "engine/grammar/json_ending.h"
#include "engine/grammar/schema_validator.h"
#include "engine/grammar/stack_automaton.h"

namespace {

using namespace mneme;

void require(bool holds, const char* property, std::string_view found) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n%.*s\n", property, static_cast<int>(found.size()), found.data());
  std::abort();
}

std::shared_ptr<const Grammar> compile(const std::string& gbnf) {
  try {
    return std::make_shared<const Grammar>(gbnf);
  } catch (const Error& e) {
    // A schema may lead to itself or be too large, but what it is converted to is good GBNF.
    const std::string_view message = e.what();
    require(message.starts_with("[compile grammar]") || message.find("bytes") != message.npos, e.what(), gbnf);
    throw;
  }
}

/// Some text of the grammar that `choices` lead to; nothing when it has no short one.
std::optional<std::string> walk(std::shared_ptr<const Grammar> grammar, std::string_view choices) {
  StackAutomaton automaton(std::move(grammar));
  StackAutomaton::SetId at = automaton.start();
  std::string text;
  while (text.size() < 400) {
    automaton.limit_work();
    const bool choosing = text.size() < choices.size();
    if (automaton.is_complete(at) && !choosing) return text;
    const bool in_string = ends_inside_string(text);
    StackAutomaton::SetId next = StackAutomaton::kDead;
    int best = 0;
    char chosen = 0;
    for (int i = 0; i < 256; ++i) {
      const auto byte = static_cast<unsigned char>(choosing ? i + choices[text.size()] : i);
      const StackAutomaton::SetId after = automaton.step(at, byte);
      const int close = choosing ? 1 : closeness(static_cast<char>(byte), in_string);
      if (after == StackAutomaton::kDead || close <= best) continue;
      best = close;
      next = after;
      chosen = static_cast<char>(byte);
      if (choosing) break;
    }
    if (next == StackAutomaton::kDead) {
      require(automaton.is_complete(at), "there is a way on", text);
      return text;
    }
    at = next;
    text += chosen;
  }
  return std::nullopt;
}

bool fits(const Json& schema, const Json& value) {
  try {
    return SchemaValidator(schema, false).fits(value);
  } catch (const Json::exception&) {
    return true;  // a reference in a form that the validator does not read
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), input.size());
  const std::string_view choices = input.substr(std::min(split + 1, size));
  try {
    const Json schema = parse_json(input.substr(0, split), "schema");
    const std::optional<std::string> text = walk(compile(json_schema_gbnf(schema)), choices.substr(0, 200));
    if (!text) return 0;
    Json value;
    try {
      value = parse_json(*text, "answer", 512);  // a walk is not longer than that
    } catch (const Error& e) {
      require(false, e.what(), *text);
    }
    require(fits(schema, value), "the value fits the schema", *text);
  } catch (const Error&) {
  }
  return 0;
}
