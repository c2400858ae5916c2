#include "recall/cube.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "recall/cube_file.h"
#include "recall/history.h"
#include "recall/search/vectors.h"
#include "recall/sql/sqlite_database.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

/// A version without what differs from store to store, to compare content.
std::string content_of(Record record) {
  record.version = 0;
  record.recorded_at = 0;
  record.scope.tenant.clear();
  record.scope.user.clear();
  if (record.pointer) record.pointer->uri.clear();
  return to_json(record).dump();
}

Record record_of(const CubeEvent& event) {
  return record_from_json(parse_json(event.payload, "event"), "version of record " + event.record);
}

/// Where a payload of a cube is written: a name made of its uri, with nothing that a path could hide.
std::string payload_path(const std::string& folder, const std::string& uri) {
  std::string name = std::filesystem::path(uri).filename().string();
  for (char& c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!plain && c != '.') c = '_';
  }
  return fmt::format("{}/{:016x}-{}", folder, XXH3_64bits(uri.data(), uri.size()), name.substr(0, 100));
}

/// The versions of one record of a cube against what the store has of it.
class RecordMerge {
 public:
  RecordMerge(Store& store, int64_t scope, const Scope& owner, Time time, const std::string& cube)
      : store_(store), scope_(scope), owner_(owner), time_(time), cube_(cube) {}

  /// Number of the record, 0 when nothing was taken.
  int64_t take(const std::vector<CubeEvent>& theirs, const std::map<std::string, std::string>& files, CubeMerge& merge) {
    Database& db = store_.database();
    std::vector<Record> versions;
    for (const CubeEvent& event : theirs) versions.push_back(adopted(event, files));
    const std::string& id = versions.back().id;
    int64_t number = 0, state = 0;
    db.query("SELECT num, state FROM record WHERE scope = ? AND id = ?", {scope_, id}, [&](const SqlRow& row) {
      number = row.integer(0);
      state = row.integer(1);
    });
    if (number == 0) return take_new(versions, theirs, merge);
    if (state == static_cast<int64_t>(State::kErased)) {
      ++merge.refused;
      return 0;
    }
    std::set<std::string> ours;
    db.query("SELECT payload FROM event WHERE record = ?", {number}, [&](const SqlRow& row) {
      ours.insert(content_of(record_from_json(parse_json(row.text(0), "event"), "event of " + id)));
    });
    if (ours.contains(content_of(versions.back()))) {
      ++merge.unchanged;
      return 0;
    }
    const Record current = store_.load(number);
    size_t first = 0;  // of theirs that we lack
    for (size_t i = 0; i < versions.size(); ++i) {
      if (content_of(versions[i]) == content_of(current)) first = i + 1;
    }
    if (first > 0) {
      ++merge.updated;
      append(number, current, std::span(versions).subspan(first), std::span(theirs).subspan(first));
      return number;
    }
    ++merge.conflicts;
    const Time their_time = theirs.back().time;
    append(number, current, std::span(versions).last(1), std::span(theirs).last(1));
    if (current.recorded_at > their_time) {
      // Ours is younger and stays; theirs is in the log.
      const Record between = store_.load(number);
      Record again = current;
      again.version = between.version + 1;
      again.recorded_at = time_;
      store_.replace(scope_, number, between, again, "import", "kept: recorded later than the version of " + cube_);
    }
    return number;
  }

 private:
  /// A version as this user's own.
  Record adopted(const CubeEvent& event, const std::map<std::string, std::string>& files) const {
    Record record = record_of(event);
    record.scope.tenant = owner_.tenant;
    record.scope.user = owner_.user;
    if (record.pointer) {
      const auto file = files.find(record.pointer->uri);
      if (file != files.end()) record.pointer->uri = file->second;
    }
    normalise(record);
    return record;
  }

  std::string reason(const CubeEvent& event) const {
    return fmt::format("{} {}: {}", cube_, format_time(event.time), event.operation);
  }

  int64_t take_new(const std::vector<Record>& versions, const std::vector<CubeEvent>& theirs, CubeMerge& merge) {
    const std::string key = store_.content_key(scope_, versions.back());
    if (store_.database().integer("SELECT COUNT(*) FROM record WHERE scope = ? AND content_key = ?", {scope_, key}) > 0) {
      ++merge.unchanged;  // the same, learned in another way
      return 0;
    }
    Record first = versions.front();
    first.version = 1;
    first.recorded_at = time_;
    const int64_t number = store_.put(scope_, 0, nullptr, first, "import", reason(theirs.front()));
    append(number, first, std::span(versions).subspan(1), std::span(theirs).subspan(1));
    ++merge.added;
    return number;
  }

  void append(int64_t number, Record before, std::span<const Record> versions, std::span<const CubeEvent> theirs) {
    for (size_t i = 0; i < versions.size(); ++i) {
      Record after = versions[i];
      after.version = before.version + 1;
      after.recorded_at = time_;
      store_.replace(scope_, number, before, after, "import", reason(theirs[i]));
      before = std::move(after);
    }
  }

  Store& store_;
  int64_t scope_;
  const Scope& owner_;
  Time time_;
  std::string cube_;
};

}  // namespace

Json to_json(const CubeManifest& m) {
  return {{"version", m.version},
          {"name", m.name},
          {"created", format_time(m.created)},
          {"records", m.records},
          {"events", m.events},
          {"vectors", m.vectors},
          {"payloads", m.payloads},
          {"embedding_model", m.embedding_model},
          {"embedding_dimension", m.embedding_dimension},
          {"checksum", m.checksum}};
}

CubeManifest export_cube(Store& store, const Scope& scope, const std::string& path, const CubeExport& options) {
  CubeManifest manifest;
  manifest.name = options.name.empty() ? scope.user : options.name;
  manifest.created = store.clock();
  const Store::Stats stats = store.stats(scope.tenant);
  manifest.embedding_model = stats.embedding_model;
  manifest.embedding_dimension = stats.embedding_dimension;
  // Remembered first: a cube that nobody remembers would escape erasure.
  const std::string absolute = std::filesystem::absolute(path).lexically_normal().string();
  store.write(scope, [&](Time time) {
    store.database().execute("INSERT INTO copy(path, scope, time) VALUES (?, ?, ?)"
                             " ON CONFLICT(path) DO UPDATE SET scope = excluded.scope, time = excluded.time",
                             {absolute, store.make_scope(scope), time});
  });
  CubeWriter writer(path, manifest);
  store.read(scope, [&] {
    Database& db = store.database();
    const int64_t owner = store.scope_number(scope);
    std::vector<int64_t> numbers;
    for (const std::string& id : options.ids) numbers.push_back(store.record_number(owner, id));
    if (options.ids.empty()) {
      db.query("SELECT num FROM record WHERE scope = ? AND state <> ? ORDER BY num",
               {owner, static_cast<int64_t>(State::kErased)},
               [&](const SqlRow& row) { numbers.push_back(row.integer(0)); });
    }
    std::sort(numbers.begin(), numbers.end());
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    for (const int64_t number : numbers) {
      const Record current = store.load(number);
      db.query("SELECT version, time, operation, actor, reason, payload FROM event WHERE record = ? ORDER BY version",
               {number}, [&](const SqlRow& row) {
                 if (!options.with_history && row.integer(0) != current.version) return;
                 writer.add_event({current.id, static_cast<uint32_t>(row.integer(0)), row.integer(1), row.text(2),
                                   row.text(3), row.text(4), row.text(5)});
               });
      db.query("SELECT data FROM vector WHERE record = ?", {number},
               [&](const SqlRow& row) { writer.add_vector(current.id, row.bytes(0)); });
      if (options.with_payloads && current.pointer) writer.add_payload(current.pointer->uri);
    }
  });
  return writer.finish();
}

CubeMerge import_cube(Store& store, const Scope& scope, const std::string& path, const std::string& payload_folder) {
  CubeReader cube(path);
  cube.verify();
  const auto all = cube.events();
  CubeMerge merge;
  std::map<std::string, std::string> files;
  for (const std::string& uri : payload_folder.empty() ? std::vector<std::string>() : cube.payload_uris()) {
    const std::string to = payload_path(payload_folder, uri);
    files[uri] = to;
    if (std::filesystem::exists(to)) continue;
    std::filesystem::create_directories(payload_folder);
    AtomicFile file(to);
    cube.read_payload(uri, [&](const std::string& part) { file.write(part); });
    file.commit();
    ++merge.payloads;
  }
  const Store::Stats stats = store.stats(scope.tenant);
  const bool same_model = stats.embedding_dimension == 0
                              ? store.options().embedder == nullptr ||
                                    store.options().embedder->model() == cube.manifest().embedding_model
                              : stats.embedding_model == cube.manifest().embedding_model &&
                                    stats.embedding_dimension == cube.manifest().embedding_dimension;
  const size_t payloads = merge.payloads;
  store.write(scope, [&](Time time) {
    merge = {};
    merge.payloads = payloads;
    const int64_t owner = store.make_scope(scope);
    RecordMerge each(store, owner, scope, time, cube.manifest().name);
    std::vector<int64_t> taken;
    for (const auto& [id, events] : all) {
      const int64_t number = each.take(events, files, merge);
      if (number == 0) continue;
      taken.push_back(number);
      const std::string data = same_model ? cube.vector(id) : std::string();
      if (!data.empty()) {
        store.put_vector(owner, number, vector_from_bytes(data), cube.manifest().embedding_model);
      } else if (store.options().embedder != nullptr) {
        const std::string text = store.load(number).text;
        store.put_vector(owner, number,
                         store.options().embedder->embed(std::span(&text, 1), Embedder::Role::kPassage).front(),
                         store.options().embedder->model());
      }
    }
    for (const int64_t number : taken) store.put_links(owner, number, store.load(number));
  });
  return merge;
}

CubeManifest merge_cubes(std::span<const std::string> paths, const std::string& out, const std::string& name) {
  if (paths.size() < 2) fail(ErrorCode::kInvalidArgument, "[merge cubes] expected two cubes or more, found {}", paths.size());
  struct Best {
    size_t cube;
    std::vector<CubeEvent> events;
  };
  std::vector<std::unique_ptr<CubeReader>> cubes;
  std::map<std::string, Best> best;
  CubeManifest manifest;
  manifest.name = name;
  manifest.created = now();
  for (const std::string& path : paths) {
    cubes.push_back(std::make_unique<CubeReader>(path));
    cubes.back()->verify();
    const CubeManifest& theirs = cubes.back()->manifest();
    if (theirs.vectors > 0) {
      if (manifest.embedding_dimension != 0 && (manifest.embedding_model != theirs.embedding_model ||
                                                manifest.embedding_dimension != theirs.embedding_dimension)) {
        fail(ErrorCode::kInvalidArgument, "[merge cubes] {}: expected vectors by {}, found vectors by {}", path,
             manifest.embedding_model, theirs.embedding_model);
      }
      manifest.embedding_model = theirs.embedding_model;
      manifest.embedding_dimension = theirs.embedding_dimension;
    }
    for (auto& [id, events] : cubes.back()->events()) {
      const auto [at, is_new] = best.try_emplace(id, Best{cubes.size() - 1, events});
      // The version recorded last wins, with its history.
      if (!is_new && events.back().time > at->second.events.back().time) at->second = {cubes.size() - 1, events};
    }
  }
  CubeWriter writer(out, manifest);
  for (const auto& [id, chosen] : best) {
    CubeReader& cube = *cubes[chosen.cube];
    for (const CubeEvent& event : chosen.events) writer.add_event(event);
    if (const std::string data = cube.vector(id); !data.empty()) writer.add_vector(id, data);
    const Record record = record_of(chosen.events.back());
    if (record.pointer) writer.copy_payload(cube.database(), record.pointer->uri);
  }
  return writer.finish();
}

CubeDiff diff_cubes(const std::string& first, const std::string& second) {
  CubeReader a(first), b(second);
  a.verify();
  b.verify();
  const auto ours = a.events(), theirs = b.events();
  CubeDiff diff;
  for (const auto& [id, events] : ours) {
    const auto other = theirs.find(id);
    if (other == theirs.end()) {
      diff.only_first.push_back(id);
    } else if (content_of(record_of(events.back())) != content_of(record_of(other->second.back()))) {
      diff.changed.push_back(id);
    }
  }
  for (const auto& [id, events] : theirs) {
    if (!ours.contains(id)) diff.only_second.push_back(id);
  }
  return diff;
}

CubeManifest verify_cube(const std::string& path) {
  CubeReader cube(path);
  cube.verify();
  return cube.manifest();
}

std::vector<Record> read_cube(const std::string& path) {
  CubeReader cube(path);
  std::vector<Record> records;
  for (const auto& [id, events] : cube.events()) records.push_back(record_of(events.back()));
  return records;
}

bool erase_from_cube(const std::string& path, std::span<const std::string> ids) {
  CubeReader reader(path);
  std::vector<std::string> held;
  for (const std::string& id : ids) {
    if (reader.database().integer("SELECT COUNT(*) FROM event WHERE record = ?", {id}) > 0) held.push_back(id);
  }
  if (held.empty()) return false;
  SqliteOptions options;
  options.single_file = true;
  options.create = false;
  const std::unique_ptr<Database> cube = open_sqlite(path, options);
  cube->transaction(Database::Access::kWrite, [&] {
    for (const std::string& id : held) {
      cube->execute("DELETE FROM event WHERE record = ?", {id});
      cube->execute("DELETE FROM vector WHERE record = ?", {id});
    }
    std::set<std::string> used;
    for (const auto& [id, events] : reader.events()) {
      const Record record = record_of(events.back());
      if (record.pointer && std::find(held.begin(), held.end(), id) == held.end()) used.insert(record.pointer->uri);
    }
    for (const std::string& uri : reader.payload_uris()) {
      if (!used.contains(uri)) cube->execute("DELETE FROM payload WHERE uri = ?", {uri});
    }
    write_manifest(*cube, reader.manifest());
  });
  cube->script("VACUUM");
  return true;
}

}  // namespace mneme::recall
