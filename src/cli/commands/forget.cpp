#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/store_access.h"
#include "recall/result_json.h"
#include "recall/time_text.h"

namespace mneme::cli {
namespace {

struct Options {
  StoreAccess access;
  std::vector<std::string> ids;
  std::string reason;
  bool all = false, expired = false, archive = false;
  recall::EraseOptions erase;
};

void print_erasure(const recall::Erasure& e, const Options& o, const GlobalOptions& global) {
  if (global.json) {
    fmt::print("{}\n", to_json(e, o.erase).dump());
    return;
  }
  fmt::print("{} {} {}\n", o.erase.dry_run ? "would erase" : "erased", e.ids.size(),
             e.ids.size() == 1 ? "record" : "records");
  for (const std::string& cube : e.cubes) fmt::print("erased in {} too\n", cube);
  for (const std::string& cube : e.missing_cubes) fmt::print(stderr, "not found, may hold a copy: {}\n", cube);
  for (const std::string& file : e.files) fmt::print("{} {}\n", o.erase.dry_run ? "would delete" : "deleted", file);
  for (const std::string& file : e.files_left) {
    fmt::print(stderr, "still there, not mneme's alone to delete: {}\n", file);
  }
  if (!e.derived.empty()) {
    fmt::print(stderr, "{} records were made from them and are still there (--derived erases them too)\n",
               e.derived.size());
  }
  if (!o.erase.verify || o.erase.dry_run) return;
  fmt::print("verified: {} texts and vectors, in none of {} files\n", e.n_texts, e.scanned.size());
  if (e.n_too_short > 0) fmt::print("{} texts are too short to be looked for\n", e.n_too_short);
  if (e.n_shared > 0) fmt::print("{} pieces are in other records too and stay\n", e.n_shared);
  if (e.server_files_unseen) fmt::print("the files of the server were not read\n");
}

void forget(Options& o, const GlobalOptions& global) {
  recall::Store& store = o.access.open(false);
  const recall::Scope& scope = o.access.scope;
  if (o.expired) {
    o.ids = expired(store, scope, store.clock());
    if (o.ids.empty()) o.erase.dry_run = true;
  }
  if (!o.archive) {
    print_erasure(o.all ? erase_user(store, scope, o.erase) : erase(store, scope, o.ids, o.erase), o, global);
    return;
  }
  if (o.all) {
    store.for_each(scope, std::vector{recall::State::kActive},
                   [&](const recall::Record& record) { o.ids.push_back(record.id); });
  }
  for (const std::string& id : o.ids) store.set_state(scope, id, recall::State::kArchived, o.reason);
  if (global.json) {
    fmt::print("{}\n", Json{{"archived", o.ids}}.dump());
  } else {
    fmt::print("archived {} {}; mneme cube restore ID brings one back\n", o.ids.size(),
               o.ids.size() == 1 ? "record" : "records");
  }
}

}  // namespace

void add_forget(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("forget", "Erase memories for good, or put them away");
  auto* ids = command->add_option("ID", options->ids, "Ids of records, or the first four or more characters of them");
  options->access.add_to(*command, false);
  auto* all = command->add_flag("--all", options->all, "All memories of the user; needs --user");
  auto* expired = command->add_flag("--expired", options->expired, "What has outlived its time to live");
  all->excludes(ids)->excludes(expired);
  expired->excludes(ids);
  command->add_flag("--derived", options->erase.derived, "Also texts that were made from them");
  command->add_flag("--verify", options->erase.verify, "Look for what was erased in all files afterwards");
  auto* dry = command->add_flag("--dry-run", options->erase.dry_run, "Only say what would be erased");
  auto* archive = command->add_flag("--archive", options->archive, "Only put away: not found any more, but restorable");
  archive->excludes(dry);
  command->add_option("--reason", options->reason, "Why, for the log (with --archive)");
  command->footer(
      "Erases text, vectors, index entries, all versions in the log, copies in cubes that the store wrote, and KV segments\n"
      "and adapters made from the memories, with their files where these are mneme's own.\n"
      "Example: mneme forget 7k2m --user bo --verify");
  command->callback([options, ids, command, &global] {
    if (ids->count() == 0 && !options->all && !options->expired) {
      fail(ErrorCode::kInvalidArgument, "[forget] expected ID, --all or --expired");
    }
    if (options->all && command->get_option("--user")->count() == 0) {
      fail(ErrorCode::kInvalidArgument, "[forget] --all: expected --user to say whose memory, found none");
    }
    forget(*options, global);
  });
}

}  // namespace mneme::cli
