#include "recall/store.h"

#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/user_folder.h"
#include "base/utf8.h"
#include "recall/kept/vector_search.h"
#include "recall/schema.h"
#include "recall/search/vectors.h"
#include "recall/series.h"
#include "recall/sql/open_database.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

std::string joined_tags(const Record& record) {
  std::string all = "\n";
  for (const std::string& tag : record.tags) all += tag + "\n";
  return all;
}

SqlValue optional_time(const std::optional<Time>& time) {
  return time ? SqlValue(*time) : SqlValue(std::monostate());
}

}  // namespace

std::unique_ptr<Store> Store::open(const std::string& location, StoreOptions options) {
  std::unique_ptr<Database> database = open_database(location, options);
  migrate(*database);
  return std::unique_ptr<Store>(new Store(std::move(database), std::move(options)));
}

Store::Store(std::unique_ptr<Database> database, StoreOptions options)
    : options_(std::move(options)), database_(std::move(database)) {
  if (options_.ledger != nullptr) {
    cache_ = options_.ledger->reserve(Tag::kCache, options_.cache_bytes, "pages of the memory store");
  }
  const std::string key = meta_value(*database_, "term_key");
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), term_key_, 16);
  if (error != std::errc() || end != key.data() + key.size() || key.empty()) {
    fail(ErrorCode::kCorruptData, "[open store] {}: expected a key for index terms, found none", database_->name());
  }
  terms_.emplace(term_key_);
  if (meta_value(*database_, "term_rules") != std::to_string(kTermRules)) {
    fail(ErrorCode::kUnsupported, "[open store] {}: expected words indexed by rules {}, found rules {}",
         database_->name(), kTermRules, meta_value(*database_, "term_rules"));
  }
  read_embedding();
  vectors_ = std::make_unique<VectorSearch>(*this);
}

Store::~Store() = default;

Time Store::now_of_machine() { return recall::now(); }

void Store::read_embedding() {
  const std::string dimension = meta_value(*database_, "embedding_dimension");
  dimension_ = 0;
  std::from_chars(dimension.data(), dimension.data() + dimension.size(), dimension_);
  if (dimension_ == 0) return;
  embedding_model_ = meta_value(*database_, "embedding_model");
  const Embedder* embedder = options_.embedder;
  if (embedder == nullptr) return;
  if (embedder->model() != embedding_model_ || embedder->dimension() != dimension_) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[open store] {}: expected embeddings by {} with {} numbers, found {} with {}",
                            database_->name(), embedding_model_, dimension_, embedder->model(), embedder->dimension()),
                "use the model that the store was made with");
  }
}

uint32_t Store::embedding_dimension() { return embedding().dimension; }

Store::Embedding Store::embedding() {
  read_embedding();
  return {embedding_model_, dimension_};
}

void Store::write(const Scope& scope, FunctionRef<void(Time time)> body) {
  database_->transaction(Database::Access::kWrite, [&] {
    database_->restrict_to_tenant(scope.tenant);
    const std::string last = meta_value(*database_, "last_time");
    const Time time = std::max<Time>(clock(), last.empty() ? kEarliestTime : std::atoll(last.c_str()) + 1);
    body(time);
    set_meta(*database_, "last_time", std::to_string(time));
  });
}

void Store::read(const Scope& scope, FunctionRef<void()> body) {
  database_->transaction(Database::Access::kRead, [&] {
    database_->restrict_to_tenant(scope.tenant);
    body();
  });
}

int64_t Store::scope_number(const Scope& scope) {
  return database_->integer("SELECT num FROM scope WHERE tenant = ? AND user_name = ?", {scope.tenant, scope.user});
}

int64_t Store::make_scope(const Scope& scope) {
  if (const int64_t number = scope_number(scope)) return number;
  return database_->integer("INSERT INTO scope(tenant, user_name) VALUES (?, ?) RETURNING num",
                            {scope.tenant, scope.user});
}

std::string Store::content_key(int64_t scope, const Record& record) const {
  std::string content = fmt::format("{}\x1f{}\x1f{}\x1f{}", scope, kind_name(record.kind), record.text, record.speaker);
  if (record.kind == Kind::kEpisode) content += fmt::format("\x1f{}\x1f{}", record.event_time, record.scope.session);
  if (record.kind == Kind::kDocument) content += "\x1f" + record.source.uri;
  if (record.pointer) content += "\x1f" + record.pointer->uri + "\x1f" + record.pointer->fingerprint;
  const XXH128_hash_t hash = XXH3_128bits_withSeed(content.data(), content.size(), term_key_);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::vector<Added> Store::add(std::span<const Record> records, std::span<const std::vector<float>> vectors) {
  if (records.empty()) return {};
  if (!vectors.empty() && vectors.size() != records.size()) {
    fail(ErrorCode::kInvalidArgument, "[add] expected {} vectors, found {}", records.size(), vectors.size());
  }
  std::vector<Record> given(records.begin(), records.end());
  const Time called = clock();
  for (size_t i = 0; i < given.size(); ++i) {
    Record& record = given[i];
    if (record.event_time == 0) record.event_time = called;
    if (record.id.empty()) record.id = new_record_id();
    try {
      if (!is_record_id(record.id)) fail(ErrorCode::kInvalidArgument, "[check record] expected an id of 16 characters");
      normalise(record);
    } catch (const Error& e) {
      if (given.size() == 1) throw;
      throw Error(e.code(), fmt::format("{} (record {} of {})", e.what(), i + 1, given.size()), e.hint());
    }
    if (record.scope.tenant != given.front().scope.tenant) {
      fail(ErrorCode::kInvalidArgument, "[add] expected records of one tenant, found two");
    }
  }
  std::vector<std::vector<float>> made;
  if (vectors.empty() && options_.embedder != nullptr) {
    std::vector<std::string> texts;
    for (const Record& record : given) texts.push_back(record.text);
    made = options_.embedder->embed(texts, Embedder::Role::kPassage);
    vectors = made;
  }
  std::vector<Added> added;
  write(given.front().scope, [&](Time time) {
    added.clear();
    std::vector<std::pair<std::pair<int64_t, int64_t>, Record>> linked;  // scope and number
    std::unordered_map<std::string, std::string> known_as;  // ids of this call that turned out to be known under others
    Scope last_scope;
    int64_t scope = 0;
    for (size_t i = 0; i < given.size(); ++i) {
      Record record = given[i];
      for (Link& link : record.links) {
        if (const auto other = known_as.find(link.to); other != known_as.end()) link.to = other->second;
      }
      if (scope == 0 || record.scope.user != last_scope.user) scope = make_scope(record.scope);
      last_scope = record.scope;
      std::string known;
      database_->query("SELECT id, valid_until FROM record WHERE scope = ? AND content_key = ?",
                       {scope, content_key(scope, record)}, [&](const SqlRow& row) {
                         // What held once and ceased, and holds again later, is something new.
                         if (row.is_null(1) || record.event_time < row.integer(1)) known = row.text(0);
                       });
      if (!known.empty()) {
        added.push_back({known, false});
        known_as[record.id] = known;
        continue;
      }
      record.version = 1;
      record.recorded_at = time;
      const int64_t number = put(scope, 0, nullptr, record, "add", "");
      if (!vectors.empty()) put_vector(scope, number, vectors[i], embedder_name());
      added.push_back({record.id, true});
      if (!record.links.empty() || !record.source.parents.empty()) linked.push_back({{scope, number}, std::move(record)});
    }
    // At the end: a record may link to one that comes after it.
    for (const auto& [at, record] : linked) put_links(at.first, at.second, record);
  });
  return added;
}

int64_t Store::put(int64_t scope, int64_t number, const Record* before, const Record& record,
                   std::string_view operation, std::string_view reason) {
  const std::vector<std::string> terms = index_terms(scope, record);
  const auto n_terms = static_cast<int64_t>(terms.size());
  // Only active records are known content. Where two came to say the same, the first keeps the key.
  SqlValue key;
  if (record.state == State::kActive) {
    const std::string own = content_key(scope, record);
    const int64_t holder =
        database_->integer("SELECT num FROM record WHERE scope = ? AND content_key = ?", {scope, own}, number);
    if (holder == number) key = own;
  }
  const std::vector<std::string> old = before != nullptr ? index_terms(scope, *before) : std::vector<std::string>();
  const auto n_old = static_cast<int64_t>(old.size());
  const SeriesPlace place = move_in_series(scope, number, before, record, n_old, n_terms);
  const std::initializer_list<SqlValue> columns = {int64_t{record.version},
                                                   static_cast<int64_t>(record.state),
                                                   static_cast<int64_t>(record.kind),
                                                   record.scope.agent,
                                                   record.scope.session,
                                                   record.speaker,
                                                   joined_tags(record),
                                                   record.source.uri,
                                                   record.event_time,
                                                   optional_time(record.valid_until),
                                                   optional_time(record.expires_at),
                                                   record.recorded_at,
                                                   record.confidence,
                                                   record.importance,
                                                   n_terms,
                                                   key,
                                                   place.series == 0 ? SqlValue(std::monostate()) : SqlValue(place.series),
                                                   place.position,
                                                   int64_t{asks(record)},
                                                   scope,
                                                   number == 0 ? SqlValue(record.id) : SqlValue(number)};
  if (number == 0) {
    number = database_->integer(
        "INSERT INTO record(version, state, kind, agent, session, speaker, tags, source, event_time, valid_until,"
        " expires_at, recorded_at, confidence, importance, n_terms, content_key, series,"
        " position, asks, scope, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING num",
        columns);
  } else {
    database_->execute(
        "UPDATE record SET version = ?, state = ?, kind = ?, agent = ?, session = ?, speaker = ?, tags = ?, source = ?,"
        " event_time = ?, valid_until = ?, expires_at = ?, recorded_at = ?, confidence = ?, importance = ?, n_terms = ?,"
        " content_key = ?, series = ?, position = ?, asks = ?, scope = ? WHERE num = ?",
        columns);
  }
  database_->execute(
      "INSERT INTO event(record, version, scope, time, operation, actor, reason, payload)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      {number, int64_t{record.version}, scope, record.recorded_at, std::string(operation), options_.actor,
       std::string(reason), to_json(record).dump()});
  if (old != terms) {
    if (before != nullptr) database_->remove_terms(number, old);
    database_->add_terms(number, terms);
  }
  count(scope, before == nullptr ? 1 : 0, n_terms - n_old);
  return number;
}

SeriesPlace Store::move_in_series(int64_t scope, int64_t number, const Record* before, const Record& after,
                                  int64_t n_old_terms, int64_t n_terms) {
  const std::string name = series_name(term_key_, after);
  SeriesPlace place;
  if (before != nullptr) {
    database_->query("SELECT series, position FROM record WHERE num = ?", {number}, [&](const SqlRow& row) {
      place = {row.integer(0), row.integer(1)};
    });
    if (name == series_name(term_key_, *before)) {
      count_in_series(*database_, scope, place.series, 0, n_terms - n_old_terms);
      return place;
    }
    count_in_series(*database_, scope, place.series, -1, -n_old_terms);
  }
  place = name.empty() ? SeriesPlace{} : next_place(*database_, scope, name);
  count_in_series(*database_, scope, place.series, 1, n_terms);
  return place;
}

std::vector<std::string> Store::index_terms(int64_t scope, const Record& record) const {
  std::vector<std::string> terms = {fmt::format("s{}", scope)};
  for (std::string& term : terms_->record_terms(record)) terms.push_back(std::move(term));
  return terms;
}

void Store::count(int64_t scope, int64_t records, int64_t terms) {
  if (records == 0 && terms == 0) return;
  database_->execute("UPDATE scope SET records = records + ?, terms = terms + ? WHERE num = ?",
                     {records, terms, scope});
}

void Store::unindex(int64_t scope, int64_t number, const Record& record) {
  const std::vector<std::string> terms = index_terms(scope, record);
  database_->remove_terms(number, terms);
  count(scope, -1, -static_cast<int64_t>(terms.size()));
  const int64_t series = database_->integer("SELECT series FROM record WHERE num = ?", {number});
  count_in_series(*database_, scope, series, -1, -static_cast<int64_t>(terms.size()));
  database_->execute("DELETE FROM vector WHERE record = ?", {number});
  database_->execute("DELETE FROM link WHERE source = ? OR target = ?", {number, number});
}

void Store::put_links(int64_t scope, int64_t number, const Record& record) {
  const auto write_link = [&](const std::string& to, int64_t is_parent) {
    const int64_t target = database_->integer("SELECT num FROM record WHERE id = ? AND scope = ?", {to, scope});
    if (target == 0) return;
    database_->execute("INSERT INTO link(source, target, is_parent, scope) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                       {number, target, is_parent, scope});
  };
  for (const Link& link : record.links) write_link(link.to, 0);
  for (const std::string& parent : record.source.parents) write_link(parent, 1);
}

std::string Store::embedder_name() const {
  return options_.embedder != nullptr ? options_.embedder->model() : "given";
}

void Store::put_vector(int64_t scope, int64_t number, std::span<const float> vector, const std::string& model) {
  read_embedding();  // another process may have been faster to store the first vector
  const std::string data = stored_vector(vector, dimension_);
  if (dimension_ == 0) {
    set_meta(*database_, "embedding_model", model);
    set_meta(*database_, "embedding_dimension", std::to_string(vector.size()));
  }
  database_->execute(
      "INSERT INTO vector(record, scope, data) VALUES (?, ?, ?)"
      " ON CONFLICT(record) DO UPDATE SET data = excluded.data",
      {number, scope, Bytes{data}});
}

int64_t Store::record_number(int64_t scope, const std::string& id) {
  const auto missing = [&] {
    throw Error(ErrorCode::kNotFound, fmt::format("[find record] expected a record of this user, found none with id '{}'",
                                                  brief_text(id)),
                "mneme cube ls lists them");
  };
  if (scope == 0 || !is_record_id(id, true)) missing();
  // The character after 'z' ends the range of ids that begin so.
  int64_t number = 0, found = 0;
  database_->query("SELECT num FROM record WHERE scope = ? AND id >= ? AND id < ? LIMIT 2", {scope, id, id + "{"},
                   [&](const SqlRow& row) {
                     number = row.integer(0);
                     ++found;
                   });
  if (found == 0) missing();
  if (found > 1) {
    fail(ErrorCode::kInvalidArgument, "[find record] expected the beginning of one id, found several with '{}'", id);
  }
  return number;
}

Record Store::load(int64_t number) {
  std::optional<Record> record;
  std::string id;
  database_->query(
      "SELECT r.id, e.payload FROM record r JOIN event e ON e.record = r.num AND e.version = r.version WHERE r.num = ?",
      {number}, [&](const SqlRow& row) {
        id = row.text(0);
        if (!row.is_null(1)) record = record_from_json(parse_json(row.text(1), "event"), "event of " + id);
      });
  if (id.empty()) {
    fail(ErrorCode::kCorruptData, "[load record] {}: expected the newest event of record {}, found none",
         database_->name(), number);
  }
  if (!record) {
    throw Error(ErrorCode::kNotFound, fmt::format("[find record] {}: the record was erased", id));
  }
  return *std::move(record);
}

Record Store::get(const Scope& scope, const std::string& id) {
  Record record;
  read(scope, [&] { record = load(record_number(scope_number(scope), id)); });
  return record;
}

void Store::replace(int64_t scope, int64_t number, const Record& before, const Record& after,
                    std::string_view operation, std::string_view reason) {
  put(scope, number, &before, after, operation, reason);
  database_->execute("DELETE FROM link WHERE source = ?", {number});
  put_links(scope, number, after);
  if (after.text == before.text) return;
  // A vector of the old text would lie.
  database_->execute("DELETE FROM vector WHERE record = ?", {number});
  if (options_.embedder == nullptr) return;
  put_vector(scope, number, options_.embedder->embed(std::span(&after.text, 1), Embedder::Role::kPassage).front(),
             embedder_name());
}

Record Store::update(const Scope& scope, const std::string& id, FunctionRef<void(Record&)> change,
                     std::string_view operation, std::string_view reason, std::optional<uint32_t> expected_version) {
  Record after;
  write(scope, [&](Time time) {
    const int64_t owner = scope_number(scope);
    const int64_t number = record_number(owner, id);
    const Record before = load(number);
    if (expected_version && before.version != *expected_version) {
      fail(ErrorCode::kInvalidArgument, "[{}] {}: expected version {}, found {}; somebody else changed it", operation,
           before.id, *expected_version, before.version);
    }
    after = before;
    change(after);
    after.id = before.id;
    after.scope.tenant = before.scope.tenant;
    after.scope.user = before.scope.user;
    normalise(after);
    if (after.state == State::kErased) {
      fail(ErrorCode::kInvalidArgument, "[{}] {}: expected a state other than erased", operation, before.id);
    }
    after.version = before.version + 1;
    after.recorded_at = time;
    replace(owner, number, before, after, operation, reason);
  });
  return after;
}

Record Store::set_state(const Scope& scope, const std::string& id, State state, std::string_view reason) {
  if (state != State::kActive && state != State::kArchived) {
    fail(ErrorCode::kInvalidArgument, "[set state] expected active or archived, found {}", state_name(state));
  }
  return update(
      scope, id,
      [&](Record& record) {
        if (record.state == state) {
          fail(ErrorCode::kInvalidArgument, "[set state] {}: it is {} already", record.id, state_name(state));
        }
        record.state = state;
        record.merged_into.clear();
      },
      state == State::kActive ? "restore" : "archive", reason);
}

void Store::merge(const Scope& scope, std::span<const std::string> ids, const std::string& into,
                  std::string_view reason) {
  const Record target = get(scope, into);
  if (target.state != State::kActive) {
    fail(ErrorCode::kInvalidArgument, "[merge] {}: expected an active record, found it {}", target.id,
         state_name(target.state));
  }
  std::vector<Link> links;
  for (const std::string& id : ids) {
    const Record record = update(
        scope, id,
        [&](Record& each) {
          if (each.id == target.id || each.state != State::kActive) {
            fail(ErrorCode::kInvalidArgument, "[merge] {}: expected another active record, found it {}", each.id,
                 each.id == target.id ? "the target" : state_name(each.state));
          }
          each.state = State::kMerged;
          each.merged_into = target.id;
        },
        "merge", reason);
    links.push_back({"merges", record.id});
  }
  update(scope, target.id, [&](Record& r) { r.links.insert(r.links.end(), links.begin(), links.end()); }, "merge",
         reason);
}

void Store::for_each(const Scope& scope, std::span<const State> states, FunctionRef<void(const Record&)> each) {
  std::string list;
  for (const State state : states) list += (list.empty() ? "" : ", ") + std::to_string(static_cast<int>(state));
  if (list.empty()) return;
  read(scope, [&] {
    database_->query(
        "SELECT e.payload, r.id FROM record r JOIN event e ON e.record = r.num AND e.version = r.version"
        " WHERE r.scope = ? AND r.state IN (" + list + ") AND e.payload IS NOT NULL ORDER BY r.num",
        {scope_number(scope)}, [&](const SqlRow& row) {
          each(record_from_json(parse_json(row.text(0), "event"), "event of " + row.text(1)));
        });
  });
}

void Store::touch(const Scope& scope, std::span<const std::string> ids) {
  if (ids.empty()) return;
  write(scope, [&](Time time) {
    const int64_t owner = scope_number(scope);
    for (const std::string& id : ids) {
      database_->execute("UPDATE record SET hits = hits + 1, last_hit = ? WHERE scope = ? AND id = ?",
                         {time, owner, id});
    }
  });
}

Store::Usage Store::usage(const Scope& scope, const std::string& id) {
  Usage usage;
  read(scope, [&] {
    database_->query("SELECT hits, last_hit FROM record WHERE num = ?", {record_number(scope_number(scope), id)},
                     [&](const SqlRow& row) {
                       usage = {static_cast<uint64_t>(row.integer(0)), row.integer(1)};
                     });
  });
  return usage;
}

Store::Stats Store::stats(const std::string& tenant) {
  Stats stats;
  Scope scope;
  scope.tenant = tenant;
  read(scope, [&] {
    const std::string ours = " WHERE scope IN (SELECT num FROM scope WHERE tenant = ?)";
    stats.users = static_cast<uint64_t>(database_->integer("SELECT COUNT(*) FROM scope WHERE tenant = ?", {tenant}));
    database_->query("SELECT state, COUNT(*) FROM record" + ours + " GROUP BY state", {tenant},
                     [&](const SqlRow& row) {
                       uint64_t* const counts[] = {&stats.active, &stats.merged, &stats.archived, &stats.erased};
                       if (row.integer(0) < 0 || row.integer(0) > 3) return;
                       *counts[row.integer(0)] = static_cast<uint64_t>(row.integer(1));
                     });
    stats.events = static_cast<uint64_t>(database_->integer("SELECT COUNT(*) FROM event" + ours, {tenant}));
    stats.vectors = static_cast<uint64_t>(database_->integer("SELECT COUNT(*) FROM vector" + ours, {tenant}));
    read_embedding();
  });
  stats.embedding_model = embedding_model_;
  stats.embedding_dimension = dimension_;
  for (const std::string& file : database_->files()) stats.bytes += std::filesystem::file_size(file);
  for (const std::string& file : vectors_->files()) {
    std::error_code gone;  // another process may have replaced it
    const uint64_t bytes = std::filesystem::file_size(file, gone);
    stats.index_bytes += gone ? 0 : bytes;
  }
  return stats;
}

std::string default_store_path() { return user_data_folder() + "/recall/memory.db"; }

}  // namespace mneme::recall
