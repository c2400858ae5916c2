#include "cli/store_access.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/byte_size.h"
#include "base/error.h"
#include "recall/open_embedder.h"
#include "recall/time_text.h"

namespace mneme::cli {

void StoreAccess::add_to(CLI::App& command, bool with_embedder) {
  command.add_option("--store", location,
                     "Path of an SQLite file, or postgres://... (default: $XDG_DATA_HOME/mneme/recall/memory.db)");
  command.add_option("--tenant", scope.tenant, "Tenant (default: default)");
  command.add_option("-u,--user", scope.user, "Whose memory (default: default)");
  command.add_option("--agent", scope.agent, "Agent that the memory is of or for");
  command.add_option("--session", scope.session, "Session, e.g. one conversation");
  command.add_option("--memory", memory_,
                     "Most memory for embedding model, page cache and vector indexes, e.g. 512M (default: no limit, "
                     "indexes 1G)");
  if (with_embedder) {
    command.add_option("--embed", embedding_model_,
                       "Embedding model: builtin, a GGUF file, or https://HOST/v1#MODEL of an OpenAI-compatible server "
                       "(its key in $MNEME_EMBED_KEY): search by meaning too; always the same for a store");
  }
}

recall::Store& StoreAccess::open(bool create) {
  if (store_) return *store_;
  if (location.empty()) location = recall::default_store_path();
  recall::StoreOptions options;
  options.create = create;
  if (const char* user = std::getenv("USER"); user != nullptr && *user != '\0') options.actor = user;
  options.ledger = &ledger_;
  if (!memory_.empty()) {
    const uint64_t bytes = parse_byte_size(memory_);
    ledger_.set_limit(Tier::kRam, bytes);
    options.cache_bytes = std::min(options.cache_bytes, bytes / 8);
    options.index_bytes = bytes;
  }
  if (!embedding_model_.empty()) {
    embedder_ = recall::open_embedder(embedding_model_, ledger_);
    options.embedder = embedder_.get();
  }
  try {
    store_ = recall::Store::open(location, options);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kNotFound) throw;
    throw Error(e.code(), e.what(), "mneme remember TEXT makes a store");
  }
  return *store_;
}

void FilterOptions::add_to(CLI::App& command) {
  command.add_option("--kind", kinds, "Only fact, note, episode, document, kv_segment or adapter");
  command.add_option("--state", states, "Only active, merged or archived (default: active)");
  command.add_option("--tag", tags, "Only with this tag; several: with all of them");
  command.add_option("--speaker", speaker, "Only said by");
  command.add_option("--source", source_uri, "Only from a file, URL or message that begins so");
  command.add_option("--source-type", source_type, "Only from this type of source, e.g. file, conversation, mem0");
  command.add_option("--meta", metadata, "Only with this metadata: KEY=VALUE");
  command.add_option("--after", event_from, "Only what happened at this time or later, e.g. 2026-11-29");
  command.add_option("--before", event_before, "Only what happened before");
  command.add_option("--recorded-after", recorded_from, "Only what was stored at this time or later");
  command.add_option("--recorded-before", recorded_before, "Only what was stored before");
  command.add_option("--valid-at", valid_at, "Only what held at this time");
  command.add_option("--min-confidence", min_confidence, "Only at least this sure, 0 to 1")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--min-importance", min_importance, "Only at least this important, 0 to 1")
      ->check(CLI::Range(0.0, 1.0));
  command.add_flag("--expired", with_expired, "Also what has expired");
}

recall::Filter FilterOptions::filter(const recall::Scope& scope) const {
  recall::Filter f;
  f.agent = scope.agent;
  f.session = scope.session;
  for (const std::string& kind : kinds) f.kinds.push_back(recall::parse_kind(kind));
  if (!states.empty()) f.states.clear();
  for (const std::string& state : states) f.states.push_back(recall::parse_state(state));
  f.tags = tags;
  f.speaker = speaker;
  f.source_uri = source_uri;
  f.source_type = source_type;
  for (const std::string& pair : metadata) {
    const size_t equals = pair.find('=');
    if (equals == pair.npos) fail(ErrorCode::kInvalidArgument, "[filter] --meta: expected KEY=VALUE, found '{}'", pair);
    f.metadata.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  const auto time = [](const std::string& text) -> std::optional<recall::Time> {
    if (text.empty()) return std::nullopt;
    return recall::parse_time(text);
  };
  f.event_from = time(event_from);
  f.event_before = time(event_before);
  f.recorded_from = time(recorded_from);
  f.recorded_before = time(recorded_before);
  f.valid_at = time(valid_at);
  f.min_confidence = min_confidence;
  f.min_importance = min_importance;
  f.with_expired = with_expired;
  return f;
}

std::string record_line(const recall::Record& record) {
  std::string line = fmt::format("{}  {}  {:<8}", record.id, recall::format_time(record.event_time).substr(0, 10),
                                 recall::kind_name(record.kind));
  if (record.state != recall::State::kActive) line += fmt::format(" ({})", recall::state_name(record.state));
  if (!record.speaker.empty()) line += fmt::format("  {}:", brief_text(record.speaker));
  return line + "  " + (record.pointer ? brief_text(record.pointer->uri, 200) + " " : "") +
         brief_text(record.text, 200);
}

}  // namespace mneme::cli
