#include "recall/cube.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/lines.h"
#include "cli/commands.h"
#include "cli/store_access.h"
#include "recall/history.h"
#include "recall/kept/vector_search.h"
#include "recall/search/learn_weights.h"
#include "recall/search/search.h"
#include "recall/time_text.h"

namespace mneme::cli {
namespace {

/// Options of all subcommands; each uses some.
struct Options {
  StoreAccess access;
  FilterOptions filter;
  std::vector<std::string> paths, ids;
  std::string path, id, out, name, to, as_of, reason, text;
  bool no_history = false, no_payloads = false;
};

using Command = void (*)(Options&, const GlobalOptions&);

CLI::App* add(CLI::App& cube, const std::string& name, const std::string& what, std::shared_ptr<Options> options,
              GlobalOptions& global, Command run) {
  CLI::App* command = cube.add_subcommand(name, what);
  command->callback([options, run, &global] { run(*options, global); });
  return command;
}

void print_records(const std::vector<recall::Record>& records, const GlobalOptions& global) {
  if (!global.json) {
    for (const recall::Record& record : records) fmt::print("{}\n", record_line(record));
    return;
  }
  Json all = Json::array();
  for (const recall::Record& record : records) all.push_back(to_json(record));
  fmt::print("{}\n", all.dump());
}

void list(Options& o, const GlobalOptions& global) {
  std::vector<recall::Record> records;
  const recall::Filter filter = o.filter.filter(o.access.scope);
  if (!o.path.empty()) {
    records = recall::read_cube(o.path);
  } else if (!o.as_of.empty()) {
    records = records_as_of(o.access.open(false), o.access.scope, recall::parse_time(o.as_of));
  } else {
    o.access.open(false).for_each(o.access.scope, filter.states,
                                  [&](const recall::Record& record) { records.push_back(record); });
  }
  const recall::Time time = o.as_of.empty() ? recall::now() : recall::parse_time(o.as_of);
  std::erase_if(records, [&](const recall::Record& record) { return !matches(filter, record, time); });
  print_records(records, global);
}

void show(Options& o, const GlobalOptions& global) {
  recall::Store& store = o.access.open(false);
  const recall::Record record = store.get(o.access.scope, o.id);
  const recall::Store::Usage usage = store.usage(o.access.scope, record.id);
  Json json = to_json(record);
  json["hits"] = usage.hits;
  if (usage.hits > 0) json["last_hit"] = recall::format_time(usage.last_hit);
  fmt::print("{}\n", json.dump(global.json ? -1 : 2));
}

void edit(Options& o, const GlobalOptions& global) {
  const recall::Record record = o.access.open(false).update(
      o.access.scope, o.id, [&](recall::Record& r) { r.text = o.text; }, "update", o.reason);
  if (global.json) {
    fmt::print("{}\n", to_json(record).dump());
  } else {
    fmt::print("{} has version {}\n", record.id, record.version);
  }
}

void restore(Options& o, const GlobalOptions& global) {
  const recall::Record record = o.access.open(false).set_state(o.access.scope, o.id, recall::State::kActive, o.reason);
  if (global.json) {
    fmt::print("{}\n", to_json(record).dump());
  } else {
    fmt::print("restored {}\n", record.id);
  }
}

void log(Options& o, const GlobalOptions& global) {
  Json all = Json::array();
  for (const recall::Event& event : history(o.access.open(false), o.access.scope, o.id)) {
    if (global.json) {
      all.push_back(to_json(event));
      continue;
    }
    fmt::print("{}  {:>3}  {:<8}  {}{}\n", recall::format_time(event.time), event.version, event.operation,
               event.after ? brief_text(event.after->text, 160) : "(erased)",
               event.reason.empty() ? "" : "  [" + brief_text(event.reason, 100) + "]");
  }
  if (global.json) fmt::print("{}\n", all.dump());
}

void roll_back(Options& o, const GlobalOptions& global) {
  const recall::Rollback done =
      rollback(o.access.open(false), o.access.scope, recall::parse_time(o.to), o.id, o.reason);
  if (global.json) {
    fmt::print("{}\n", Json{{"restored", done.restored}, {"archived", done.archived}, {"erased", done.erased}}.dump());
  } else {
    fmt::print("{} records have an older version back, {} made since are archived\n", done.restored, done.archived);
    if (done.erased > 0) fmt::print("{} were erased and cannot come back\n", done.erased);
  }
}

void print_manifest(const recall::CubeManifest& m, const std::string& path, const GlobalOptions& global) {
  if (global.json) {
    fmt::print("{}\n", to_json(m).dump());
  } else {
    fmt::print("{}: cube '{}' of {}: {} records in {} versions, {} vectors, {} files; checksum {}\n", path,
               brief_text(m.name), recall::format_time(m.created), m.records, m.events, m.vectors, m.payloads,
               m.checksum);
  }
}

void export_to(Options& o, const GlobalOptions& global) {
  recall::CubeExport options;
  options.name = o.name;
  options.ids = o.ids;
  options.with_history = !o.no_history;
  options.with_payloads = !o.no_payloads;
  print_manifest(export_cube(o.access.open(false), o.access.scope, o.path, options), o.path, global);
}

void import_from(Options& o, const GlobalOptions& global) {
  recall::Store& store = o.access.open(true);
  const bool server = o.access.location.find("://") != std::string::npos;
  const std::string folder =
      server ? std::string() : (std::filesystem::path(o.access.location).parent_path() / "payloads").string();
  const recall::CubeMerge merge = import_cube(store, o.access.scope, o.path, folder);
  if (store.embedding_dimension() != 0) store.vectors().refresh(o.access.scope);
  if (global.json) {
    fmt::print("{}\n", Json{{"added", merge.added},
                            {"updated", merge.updated},
                            {"unchanged", merge.unchanged},
                            {"refused", merge.refused},
                            {"conflicts", merge.conflicts},
                            {"payloads", merge.payloads}}
                           .dump());
    return;
  }
  fmt::print("{} added, {} updated, {} unchanged, {} conflicts, {} files\n", merge.added, merge.updated,
             merge.unchanged, merge.conflicts, merge.payloads);
  if (merge.refused > 0) fmt::print("{} were erased here and stay erased\n", merge.refused);
}

void merge(Options& o, const GlobalOptions& global) {
  const std::string name = o.name.empty() ? std::filesystem::path(o.out).stem().string() : o.name;
  print_manifest(recall::merge_cubes(o.paths, o.out, name), o.out, global);
}

void merge_records(Options& o, const GlobalOptions& global) {
  o.access.open(false).merge(o.access.scope, o.ids, o.to, o.reason);
  if (global.json) {
    fmt::print("{}\n", Json{{"merged", o.ids.size()}}.dump());
  } else {
    fmt::print("merged {} into {}\n", o.ids.size(), o.to);
  }
}

void diff(Options& o, const GlobalOptions& global) {
  if (o.paths.size() != 2)
    fail(ErrorCode::kInvalidArgument, "[diff cubes] expected two cubes, found {}", o.paths.size());
  const recall::CubeDiff diff = recall::diff_cubes(o.paths[0], o.paths[1]);
  if (global.json) {
    fmt::print(
        "{}\n",
        Json{{"only_first", diff.only_first}, {"only_second", diff.only_second}, {"changed", diff.changed}}.dump());
    return;
  }
  for (const std::string& id : diff.only_first) fmt::print("- {}\n", id);
  for (const std::string& id : diff.only_second) fmt::print("+ {}\n", id);
  for (const std::string& id : diff.changed) fmt::print("~ {}\n", id);
}

void verify(Options& o, const GlobalOptions& global) {
  if (!o.path.empty()) {
    print_manifest(recall::verify_cube(o.path), o.path, global);
    return;
  }
  o.access.open(false).check();
  if (global.json) {
    fmt::print("{}\n", Json{{"sound", true}}.dump());
  } else {
    fmt::print("{}: sound\n", o.access.open(false).database().name());
  }
}

/// Learns weights of the search from questions whose answers are known.
void learn(Options& o, const GlobalOptions& global) {
  recall::Store& store = o.access.open(false);
  std::vector<recall::RankingExample> examples;
  for_each_line(read_text_file(o.path), [&](std::string_view line, size_t number) {
    const std::string what = fmt::format("{}:{}", o.path, number);
    const Json json = parse_json(line, what);
    if (!json.is_object() || !json.contains("query") || !json["query"].is_string() || !json.contains("ids") ||
        !json["ids"].is_array()) {
      fail(ErrorCode::kCorruptData, "[learn] {}: expected {{\"query\": TEXT, \"ids\": [...]}}", what);
    }
    recall::Query query;
    query.text = json["query"];
    query.scope = o.access.scope;
    query.k = 200;
    query.diversity = 0;
    recall::RankingExample example;
    for (const recall::Hit& hit : search(store, query).hits) {
      example.candidates.push_back(hit.why);
      example.wanted.push_back(std::find(json["ids"].begin(), json["ids"].end(), Json(hit.record.id)) !=
                               json["ids"].end());
    }
    examples.push_back(std::move(example));
  });
  if (examples.empty()) fail(ErrorCode::kInvalidArgument, "[learn] {}: expected examples, found none", o.path);
  const recall::FusionWeights weights = recall::learn_weights(examples, {});
  AtomicFile file(o.out);
  file.write(to_json(recall::SearchWeights{weights, {}}).dump(2) + "\n");
  file.commit();
  const double before = mean_reciprocal_rank(examples, {}), after = mean_reciprocal_rank(examples, weights);
  if (global.json) {
    fmt::print("{}\n", Json{{"examples", examples.size()}, {"mrr_before", before}, {"mrr_after", after}}.dump());
  } else {
    fmt::print("{} examples: mean reciprocal rank {:.3f} before, {:.3f} with {}\n", examples.size(), before, after,
               o.out);
  }
}

/// Makes the vector index of a user, or brings it up to date.
void index(Options& o, const GlobalOptions& global) {
  const std::string what = o.access.open(false).vectors().refresh(o.access.scope);
  if (global.json) {
    fmt::print("{}\n", Json{{"index", what}}.dump());
  } else {
    fmt::print("{}\n", what);
  }
}

void stats(Options& o, const GlobalOptions& global) {
  const recall::Store::Stats s = o.access.open(false).stats(o.access.scope.tenant);
  if (global.json) {
    fmt::print("{}\n", Json{{"users", s.users},
                            {"active", s.active},
                            {"merged", s.merged},
                            {"archived", s.archived},
                            {"erased", s.erased},
                            {"events", s.events},
                            {"vectors", s.vectors},
                            {"bytes", s.bytes},
                            {"index_bytes", s.index_bytes},
                            {"embedding_model", s.embedding_model},
                            {"embedding_dimension", s.embedding_dimension}}
                           .dump());
    return;
  }
  fmt::print(
      "{} users: {} active records, {} merged, {} archived, {} erased; {} events, {} vectors, {}, indexes {}\n",
      s.users, s.active, s.merged, s.archived, s.erased, s.events, s.vectors, format_byte_size(s.bytes),
      format_byte_size(s.index_bytes));
}

}  // namespace

void add_cube(CLI::App& app, GlobalOptions& global) {
  CLI::App* cube = app.add_subcommand("cube", "Look at memories, their history, and move them between stores");
  cube->require_subcommand(1);
  auto o = std::make_shared<Options>();
  const auto store_command = [&](const char* name, const char* what, Command run, bool embed = false) {
    CLI::App* command = add(*cube, name, what, o, global, run);
    o->access.add_to(*command, embed);
    return command;
  };
  CLI::App* ls = store_command("ls", "List a user's memories, or those of a cube", list);
  ls->add_option("CUBE", o->path, "A cube file (default: the store)");
  ls->add_option("--as-of", o->as_of, "As they were at this time");
  o->filter.add_to(*ls);
  store_command("show", "Print all of one record", show)->add_option("ID", o->id, "Record")->required();
  store_command("log", "Explain a record: all of its versions", log)->add_option("ID", o->id, "Record")->required();
  CLI::App* change = store_command("edit", "Give a record a new text, as a new version", edit, true);
  change->add_option("ID", o->id, "Record")->required();
  change->add_option("TEXT", o->text, "New text")->required();
  CLI::App* back = store_command("restore", "Bring an archived or merged record back", restore);
  back->add_option("ID", o->id, "Record")->required();
  CLI::App* roll = store_command("rollback", "Bring a memory back to an earlier state", roll_back, true);
  roll->add_option("--to", o->to, "Time of that state; times in `cube log` are exact")->required();
  roll->add_option("--id", o->id, "Only this record (default: all of the user's)");
  CLI::App* join = store_command("join", "Mark records as merged into another", merge_records);
  join->add_option("INTO", o->to, "The record that stays")->required();
  join->add_option("ID", o->ids, "Records that it replaces")->required();
  for (CLI::App* command : {change, back, roll, join}) command->add_option("--reason", o->reason, "Why, for the log");
  CLI::App* out = store_command("export", "Write a cube: one file with records, history and vectors", export_to);
  out->add_option("FILE", o->path, "Cube to write")->required();
  out->add_option("--id", o->ids, "Only these records (default: all of the user's)");
  out->add_option("--name", o->name, "Name of the cube (default: the user's)");
  out->add_flag("--no-history", o->no_history, "Newest versions only");
  out->add_flag("--no-payloads", o->no_payloads, "Without the files that records point to");
  store_command("import", "Take a cube into a user's memory", import_from, true)
      ->add_option("FILE", o->path, "Cube to read")
      ->required();
  CLI::App* both = add(*cube, "merge", "Make one cube of several", o, global, merge);
  both->add_option("FILE", o->paths, "Cubes")->required();
  both->add_option("-o,--out", o->out, "Cube to write")->required();
  both->add_option("--name", o->name, "Name of the cube (default: the file's)");
  add(*cube, "diff", "Compare two cubes: - only in the first, + only in the second, ~ changed", o, global, diff)
      ->add_option("FILE", o->paths, "Two cubes")
      ->required()
      ->expected(2);
  store_command("verify", "Check a cube, or the store against its log and its vector indexes", verify)
      ->add_option("FILE", o->path, "Cube (default: the store)");
  CLI::App* weights =
      store_command("learn", "Learn weights for recall --weights from questions with known answers", learn, true);
  weights->add_option("FILE", o->path, "JSON lines of {\"query\": TEXT, \"ids\": [ID, ...]}")->required();
  weights->add_option("-o,--out", o->out, "File of weights to write")->required();
  store_command("index", "Make a user's vector index or bring it up to date, however long it takes", index);
  store_command("stats", "Count a tenant's records", stats);
  cube->footer("Example: mneme cube export bo.cube --user bo && mneme cube verify bo.cube");
}

}  // namespace mneme::cli
