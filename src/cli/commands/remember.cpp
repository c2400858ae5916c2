#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/input_text.h"
#include "cli/store_access.h"
#include "recall/time_text.h"

namespace mneme::cli {
namespace {

struct Options {
  StoreAccess access;
  std::string text, kind = "fact", speaker, source, at, until, ttl, metadata;
  std::vector<std::string> tags, links, parents;
  std::string pointer, fingerprint;
  double confidence = 1, importance = 0.5;
  bool from_stdin = false;
};

recall::Record record_of(const Options& o) {
  recall::Record record;
  record.text = o.from_stdin ? read_stdin() : o.text;
  record.kind = recall::parse_kind(o.kind);
  record.scope = o.access.scope;
  record.speaker = o.speaker;
  record.source = {"user", o.source, o.parents};
  if (!o.at.empty()) record.event_time = recall::parse_time(o.at);
  if (!o.until.empty()) record.valid_until = recall::parse_time(o.until);
  if (!o.ttl.empty()) record.expires_at = recall::now() + recall::parse_duration(o.ttl);
  record.confidence = o.confidence;
  record.importance = o.importance;
  record.tags = o.tags;
  for (const std::string& link : o.links) {
    const size_t colon = link.rfind(':');
    if (colon == link.npos)
      fail(ErrorCode::kInvalidArgument, "[remember] --link: expected RELATION:ID, found '{}'", link);
    record.links.push_back({link.substr(0, colon), link.substr(colon + 1)});
  }
  if (!o.pointer.empty()) record.pointer = recall::Pointer{o.pointer, o.fingerprint, 0};
  if (!o.metadata.empty()) record.metadata = parse_json(o.metadata, "--metadata");
  return record;
}

void remember(Options& options, const GlobalOptions& global) {
  const recall::Record record = record_of(options);
  recall::Store& store = options.access.open(true);
  const recall::Added added = store.add(record);
  if (global.json) {
    fmt::print("{}\n", Json{{"id", added.id}, {"new", added.is_new}}.dump());
  } else {
    fmt::print("{} {}\n", added.is_new ? "remembered" : "known already:", added.id);
  }
}

}  // namespace

void add_remember(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("remember", "Store a fact or note in long-term memory");
  auto* text = command->add_option("TEXT", options->text, "What to remember");
  auto* from_stdin = command->add_flag("--stdin", options->from_stdin, "Take the text from standard input");
  text->excludes(from_stdin);
  options->access.add_to(*command, true);
  command->add_option("--kind", options->kind, "fact, note, episode, document, kv_segment or adapter (default: fact)");
  command->add_option("--tag", options->tags, "Tag; may be given several times");
  command->add_option("--speaker", options->speaker, "Who said it");
  command->add_option("--source", options->source, "Where it comes from: a file, URL, message");
  command->add_option("--from", options->parents, "Id of a record that it was made from");
  command->add_option("--at", options->at, "When it happened or began to hold, e.g. 2026-11-29 (default: now)");
  command->add_option("--until", options->until, "When it ceased or will cease to hold");
  command->add_option("--ttl", options->ttl, "Forget to find it after this time: 30s, 15m, 12h, 7d, 2w");
  command->add_option("--confidence", options->confidence, "How sure it is, 0 to 1 (default: 1)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--importance", options->importance, "Raises its rank, 0 to 1 (default: 0.5)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--link", options->links, "Link to another record: RELATION:ID");
  command->add_option("--pointer", options->pointer, "File of a kv_segment or adapter");
  command->add_option("--fingerprint", options->fingerprint, "Fingerprint of the model that the file fits");
  command->add_option("--metadata", options->metadata, "Anything else, as a JSON object");
  command->footer(
      "What is known already is not stored twice. Example:\n"
      "  mneme remember \"Ann's daughter is called Mia\" --user bo --tag family");
  command->callback([options, text, &global] {
    if (!options->from_stdin && text->count() == 0 && options->pointer.empty()) {
      fail(ErrorCode::kInvalidArgument, "[remember] expected TEXT or --stdin");
    }
    remember(*options, global);
  });
}

}  // namespace mneme::cli
