#pragma once

#include <optional>
#include <string>

#include "cli/commands.h"
#include "cli/kv_auto.h"
#include "cli/sampling_flags.h"
#include "engine/chat_session.h"

namespace mneme::cli {

/// Chats on the terminal until Ctrl-D or /quit. Ctrl-C stops the answer being written, not the program. Without a
/// template each line is continued as plain text. With a recorder (or null) the dialogue goes on from its session and
/// is saved there; `cache`: of prefixes, or null; `watch`: of `--kv auto`, or null.
void chat_on_terminal(Engine& engine, std::optional<ChatTemplate> chat, const std::string& system,
                      const SamplingFlags& sampling, const GlobalOptions& global, SessionRecorder* recorder,
                      PrefixCache* cache, KvWatch* watch);

}  // namespace mneme::cli
