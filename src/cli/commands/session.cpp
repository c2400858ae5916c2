#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <memory>
#include <string>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/session_options.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string folder, name, file;
};

Json summary_json(const SessionSummary& session) {
  Json out = {{"name", session.name},
              {"bytes", session.bytes},
              {"changed", session.changed},
              {"model", session.identity.model},
              {"fingerprint", session.identity.fingerprint},
              {"kv", session.identity.kv},
              {"tokens", session.n_tokens},
              {"state_tokens", session.n_state},
              {"problem", session.problem}};
  out["messages"] = session.details.value("messages", Json::array());
  return out;
}

std::string local_time(int64_t seconds) {
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(std::time_t{seconds}));
}

void list(const Options& options, const GlobalOptions& global) {
  const SessionFolder folder = session_folder(options.folder);
  const auto sessions = folder.list();
  if (global.json) {
    Json out = Json::array();
    for (const SessionSummary& session : sessions) out.push_back(summary_json(session));
    fmt::print("{}\n", out.dump());
    return;
  }
  if (sessions.empty()) fmt::print(stderr, "no sessions in {}\n", folder.path());
  for (const SessionSummary& session : sessions) {
    fmt::print("{:<20} {}  {:>7} tokens  {:>10}  {} ({}){}\n", session.name, local_time(session.changed),
               session.n_tokens, format_byte_size(session.bytes), session.identity.model, session.identity.kv,
               session.problem.empty() ? "" : "  " + session.problem);
  }
}

void show(const Options& options, const GlobalOptions& global) {
  const SessionSummary session = session_folder(options.folder).summary(options.name, true);
  if (global.json) {
    fmt::print("{}\n", summary_json(session).dump());
  } else {
    fmt::print(
        "name     {}\nchanged  {}\nsize     {}\nmodel    {} ({})\nkv       {}\ntokens   {}, {} of them with their "
        "state\n",
        session.name, local_time(session.changed), format_byte_size(session.bytes), session.identity.model,
        session.identity.fingerprint, session.identity.kv, session.n_tokens, session.n_state);
    fmt::print("checked  {}\n", session.problem.empty() ? "every block is as it was written" : session.problem);
    for (const Json& message : session.details.value("messages", Json::array())) {
      fmt::print("\n[{}]\n{}\n", message.value("role", ""), message.value("content", ""));
    }
  }
  if (!session.problem.empty()) fail(ErrorCode::kCorruptData, "[session] {}: {}", session.name, session.problem);
}

}  // namespace

void add_session(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("session", "List, show, copy and remove sessions of `mneme run --session`");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, bool named, const char* file) {
    CLI::App* sub = command->add_subcommand(name, what);
    add_session_folder(*sub, options->folder);
    if (named) sub->add_option("NAME", options->name, "Name of the session")->required();
    if (file != nullptr) sub->add_option("FILE", options->file, file)->required();
    return sub;
  };
  add("list", "All sessions", false, nullptr)->callback([options, &global] { list(*options, global); });
  add("show", "One session, every block verified, with its messages", true, nullptr)->callback([options, &global] {
    show(*options, global);
  });
  add("export", "Copy a session to a file", true, "File to write")->callback([options] {
    session_folder(options->folder).export_to(options->name, options->file);
  });
  add("import", "Take an exported file as a new session", true, "File to read")->callback([options] {
    session_folder(options->folder).import_from(options->file, options->name);
  });
  add("rm", "Remove a session", true, nullptr)->callback([options] {
    session_folder(options->folder).remove(options->name);
  });
}

}  // namespace mneme::cli
