#pragma once

#include <optional>
#include <string>

#include "base/function_ref.h"
#include "base/json.h"

namespace mneme {

/// What a chat template can express, found by rendering small conversations and looking for their words in the output.
struct ChatCapabilities {
  bool system_role = false;
  bool developer_role = false;
  bool tools = false;       ///< Lists the tools it is given.
  bool documents = false;   ///< Lists the documents it is given.
  bool tool_calls = false;  ///< Shows the tool calls of assistant messages.
  bool parallel_tool_calls = false;
  bool tool_responses = false;            ///< Knows the role "tool".
  bool tool_call_ids = false;             ///< Shows the id that joins a call and its result.
  bool object_arguments = false;          ///< Arguments of calls may be objects.
  bool string_arguments = false;          ///< Arguments of calls may be JSON in a string.
  bool short_tool_call_ids = false;       ///< Refuses ids that are not nine letters and digits.
  bool null_content_with_calls = false;   ///< A message with tool calls may have null content.
  bool empty_content_with_calls = false;  ///< A message with tool calls may have "" as content.
  bool string_content = false;
  bool list_content = false;       ///< Content may be a list of parts.
  bool generation_prompt = false;  ///< Output changes with add_generation_prompt.
  bool writes_bos = false;         ///< Output begins with the BOS text: no other must be added.
};

/// Renders a request as it is, without any adaptation; nothing when the template refuses it.
using ProbeRender = FunctionRef<std::optional<std::string>(const Json& messages, const Json& tools,
                                                           const Json& documents, bool add_generation_prompt)>;

ChatCapabilities probe_capabilities(ProbeRender render, const std::string& bos);

Json to_json(const ChatCapabilities& capabilities);

}  // namespace mneme
