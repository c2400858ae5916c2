#include "recall/import/import.h"
#include "recall/kept/vector_search.h"

#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/store_access.h"

namespace mneme::cli {
namespace {

struct Options {
  StoreAccess access;
  std::string path, format = "auto";
};

}  // namespace

void add_import(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("import", "Take chats, documents or another system's memories into the store");
  command->add_option("PATH", options->path, "File, or folder of .md, .txt, .jsonl and .json files")->required();
  command->add_option("--format", options->format, "auto, chat, markdown, text, mem0 or mcp (default: auto)");
  options->access.add_to(*command, true);
  command->footer(
      "chat: JSON lines of {\"role\", \"content\"} or {\"messages\": [...]}; mem0: an export of Mem0, whose users are "
      "kept\n"
      "unless --user says whose memory it is; mcp: memory.jsonl of the MCP memory server. A file is stored as a whole "
      "or\n"
      "not at all, and what is known already is not stored twice. Example: mneme import notes/ --user bo");
  command->callback([options, command, &global] {
    recall::ImportOptions import;
    import.scope = options->access.scope;
    import.keep_users = command->get_option("--user")->count() == 0;
    if (options->format != "auto") import.format = recall::parse_import_format(options->format);
    recall::Store& store = options->access.open(true);
    const recall::ImportReport report = import_path(store, options->path, import, [&](const std::string& file) {
      if (global.verbose) fmt::print(stderr, "{}\n", file);
    });
    if (store.embedding_dimension() != 0) store.vectors().refresh(import.scope);
    if (global.json) {
      fmt::print(
          "{}\n",
          Json{{"files", report.files}, {"added", report.added}, {"known", report.known}, {"skipped", report.skipped}}
              .dump());
    } else {
      fmt::print("{} files: {} records added, {} known already, {} skipped\n", report.files, report.added, report.known,
                 report.skipped);
    }
  });
}

}  // namespace mneme::cli
