#pragma once

#include <string>

#include "engine/generation.h"
#include "engine/session/session_recorder.h"

namespace mneme {

/// Continues the plain text of a session: appends `text` (its tokens without a beginning-of-text token when the session
/// holds text already), generates, saves. With an empty text it goes on where the last answer stopped, and draws as if
/// it had never stopped. `request` carries sampling, limits and callbacks. Throws Error(kInvalidArgument) when there is
/// nothing to continue or the session is a chat. `cache`: of prefixes, or null.
GenerationResult continue_text(Engine& engine, SessionRecorder& recorder, const std::string& text,
                               GenerationRequest request, PrefixCache* cache = nullptr);

}  // namespace mneme
