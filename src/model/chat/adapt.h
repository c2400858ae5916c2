#pragma once

#include "base/json.h"
#include "model/chat/capabilities.h"

namespace mneme {

/// A request as a template wants it.
struct AdaptedRequest {
  Json messages, tools, documents;  ///< null where the template is not to see them.
};

/// Rewrites checked messages for a template of the given capabilities, so that nothing the client sent is lost:
/// contents, arguments and call ids in the form that the template takes; tools, documents, tool calls and results it
/// does not know as plain JSON text; a system message it does not know at the start of the next user message.
AdaptedRequest adapt_request(Json messages, Json tools, Json documents, const ChatCapabilities& capabilities);

}  // namespace mneme
