#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "recall/record.h"

namespace mneme::recall {

/// Forms of text that memories come in.
enum class ImportFormat {
  kChat,      ///< JSON lines: {"role", "content", "name"?, "timestamp"?, "session_id"?, "id"?} or {"messages": [...], "id"?}
  kMarkdown,  ///< Cut at headings and paragraphs.
  kText,      ///< Cut at paragraphs.
  kMem0,      ///< JSON: a list of memories, or an object that has one as "results" or "memories".
  kMcp,       ///< JSON lines of the MCP memory server: entities with observations, and relations.
};
/// "chat", "markdown", "text", "mem0", "mcp". Throws Error(kInvalidArgument) that lists them.
ImportFormat parse_import_format(std::string_view name);
/// By the end of the file's name, and for .json and .jsonl by what the text says.
ImportFormat guess_import_format(std::string_view file_name, std::string_view text);

struct ImportSource {
  std::string name;            ///< For messages and provenance: the file.
  Scope scope;                 ///< Of all records.
  bool keep_users = false;     ///< Mem0: records go to the user that the export names, when it names one.
  Time time = 0;               ///< Of what has none, e.g. the file's.
};

struct Imported {
  std::vector<Record> records;  ///< With ids, so that they can link to each other.
  size_t skipped = 0;           ///< System messages and empty ones.
};

/// Reads memories. System messages are passed over, since instructions are no memories; identity fields inside foreign
/// metadata are dropped, so that a file cannot choose whose memory it enters. Throws Error(kCorruptData) with the line.
Imported parse_import(std::string_view text, ImportFormat format, const ImportSource& source);

}  // namespace mneme::recall
