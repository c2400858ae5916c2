#include "recall/erase.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "recall/byte_scan.h"
#include "recall/cube.h"
#include "recall/derived_files.h"
#include "recall/index/unit_length.h"
#include "recall/index/vector_codec.h"
#include "recall/kept/vector_search.h"
#include "recall/search/vectors.h"

namespace mneme::recall {
namespace {

/// The bytes of a vector as the database and the files of indexes hold them: as it is stored, scaled once more to length
/// 1, in halves (heads of SPANN) and in bytes (its lists).
std::vector<std::string> forms_of_vector(const std::string& stored) {
  std::vector<std::string> forms = {stored};
  const std::vector<float> row = vector_from_bytes(stored);
  if (row.size() < ByteScan::kPiece) return forms;  // too short to be told from chance
  std::vector<float> unit(row.size());
  ann::to_unit_length(row, unit);
  for (const ann::VectorType type : {ann::VectorType::kF32, ann::VectorType::kF16, ann::VectorType::kI8}) {
    const ann::VectorCodec codec(type, unit.size());
    std::string bytes(codec.bytes(), '\0');
    codec.encode(unit, reinterpret_cast<std::byte*>(bytes.data()));
    if (bytes != stored) forms.push_back(std::move(bytes));
  }
  return forms;
}

/// What must not be found afterwards.
class Remains {
 public:
  void add_text(const std::string& text) {
    if (text.empty() || !texts_.insert(text).second) return;
    bool long_enough = scan_.add(text);
    const std::string json = Json(text).dump();
    if (json.size() != text.size() + 2) scan_.add(std::string_view(json).substr(1, json.size() - 2));
    ++(long_enough ? n_texts_ : n_too_short_);
  }
  void add_record(const Record& record) {
    add_text(record.text);
    if (record.metadata.is_object()) {
      for (const auto& [key, value] : record.metadata.items()) {
        if (value.is_string() && value.get_ref<const std::string&>().size() >= ByteScan::kPiece) {
          add_text(value.get<std::string>());
        }
      }
    }
  }
  void add_vector(const std::string& bytes) {
    if (!vectors_.insert(bytes).second) return;
    for (const std::string& form : forms_of_vector(bytes)) scan_.add(form);
    ++n_texts_;
  }
  const std::set<std::string>& vectors() const { return vectors_; }
  const ByteScan& scan() const { return scan_; }
  size_t n_texts() const { return n_texts_; }
  size_t n_too_short() const { return n_too_short_; }

 private:
  ByteScan scan_;
  std::set<std::string> texts_, vectors_;
  size_t n_texts_ = 0, n_too_short_ = 0;
};

/// Everything that was ever stored of a record, inside a transaction.
void collect(Database& db, int64_t number, Remains& remains) {
  db.query("SELECT payload FROM event WHERE record = ? AND payload IS NOT NULL", {number}, [&](const SqlRow& row) {
    remains.add_record(record_from_json(parse_json(row.text(0), "event"), "event"));
  });
  db.query("SELECT data FROM vector WHERE record = ?", {number},
           [&](const SqlRow& row) { remains.add_vector(row.bytes(0)); });
}

/// Adds the records that were made from those in `numbers`, and from these in turn. With `files_only` a KV segment or an
/// adapter alone: it is what a model made of the text itself.
void add_derived(Database& db, std::vector<int64_t>& numbers, bool files_only) {
  std::set<int64_t> known(numbers.begin(), numbers.end());
  for (size_t i = 0; i < numbers.size(); ++i) {
    db.query(
        "SELECT l.source, r.kind FROM link l JOIN record r ON r.num = l.source WHERE l.target = ? AND l.is_parent = 1"
        " ORDER BY l.source",
        {numbers[i]}, [&](const SqlRow& row) {
          const int64_t kind = row.integer(1);
          const bool is_file = kind == static_cast<int64_t>(Kind::kKvSegment) ||
                               kind == static_cast<int64_t>(Kind::kAdapter);
          if ((is_file || !files_only) && known.insert(row.integer(0)).second) numbers.push_back(row.integer(0));
        });
  }
}

std::string id_of(Database& db, int64_t number) {
  std::string id;
  db.query("SELECT id FROM record WHERE num = ?", {number}, [&](const SqlRow& row) { id = row.text(0); });
  return id;
}

void erase_one(Store& store, int64_t scope, int64_t number, Time time) {
  Database& db = store.database();
  const Record record = store.load(number);
  store.unindex(scope, number, record);
  db.execute("UPDATE event SET payload = NULL, actor = '', reason = '' WHERE record = ?", {number});
  db.execute(
      "UPDATE record SET version = version + 1, state = ?, agent = '', session = '', speaker = '', tags = '',"
      " source = '', event_time = 0, valid_until = NULL, expires_at = NULL, recorded_at = ?, n_terms = 0,"
      " content_key = NULL, series = NULL, position = 0, asks = 0 WHERE num = ?",
      {static_cast<int64_t>(State::kErased), time, number});
  db.execute(
      "INSERT INTO event(record, version, scope, time, operation, actor, reason, payload)"
      " VALUES (?, ?, ?, ?, 'erase', ?, '', NULL)",
      {number, int64_t{record.version} + 1, scope, time, store.options().actor});
}

/// True when a living record still says the piece.
bool is_said(Database& db, const std::string& piece) {
  int64_t n = 0;
  // No LIKE: the piece may cut a character in two. As bytes both databases compare exactly.
  db.query("SELECT 1 FROM event WHERE payload IS NOT NULL AND " + db.contains_bytes("payload") + " LIMIT 1",
           {Bytes{piece}}, [&](const SqlRow&) { ++n; });
  if (n == 0) {
    db.query("SELECT 1 FROM scope WHERE " + db.contains_bytes("user_name") + " OR " + db.contains_bytes("tenant") +
                 " LIMIT 1",
             {Bytes{piece}, Bytes{piece}}, [&](const SqlRow&) { ++n; });
  }
  return n > 0;
}

/// Leaves out the pieces of vectors that another record has too.
void leave_out_shared_vectors(Database& db, const Remains& remains, std::vector<ByteScan::Found>& left,
                              std::set<std::string>& shared) {
  std::set<std::string> kept;  // all forms of them
  db.query("SELECT data FROM vector", {}, [&](const SqlRow& row) {
    if (const std::string bytes = row.bytes(0); remains.vectors().contains(bytes)) {
      for (const std::string& form : forms_of_vector(bytes)) kept.insert(form);
    }
  });
  std::erase_if(left, [&](const ByteScan::Found& found) {
    const bool is_kept = std::any_of(kept.begin(), kept.end(), [&](const std::string& form) {
      return form.find(found.bytes) != std::string::npos;
    });
    if (is_kept) shared.insert(found.bytes);
    return is_kept;
  });
}

/// Pieces in the files that no living record accounts for.
std::vector<ByteScan::Found> left_over(Store& store, const Remains& remains, Erasure& erasure) {
  std::vector<ByteScan::Found> left;
  erasure.scanned.clear();
  std::set<std::string> shared;
  std::vector<std::string> files = store.database().files();
  files.insert(files.end(), erasure.cubes.begin(), erasure.cubes.end());
  const std::vector<std::string> indexes = store.vectors().files();
  files.insert(files.end(), indexes.begin(), indexes.end());
  for (const std::string& file : files) {
    erasure.scanned.push_back(file);
    for (ByteScan::Found& found : remains.scan().scan(file)) {
      if (!shared.contains(found.bytes)) left.push_back(std::move(found));
    }
  }
  if (!left.empty()) {
    store.database().transaction(Database::Access::kRead, [&] {
      store.database().restrict_to_tenant(std::string(kAllTenants));
      std::erase_if(left, [&](const ByteScan::Found& found) {
        return shared.contains(found.bytes) ||
               (is_said(store.database(), found.bytes) && shared.insert(found.bytes).second);
      });
      if (!left.empty()) leave_out_shared_vectors(store.database(), remains, left, shared);
    });
  }
  erasure.n_shared = shared.size();
  return left;
}

/// Erases the records in the cubes that were written of this user's memory.
void erase_in_cubes(const std::vector<std::string>& paths, Erasure& erasure) {
  for (const std::string& path : paths) {
    if (!std::filesystem::exists(path)) {
      erasure.missing_cubes.push_back(path);
    } else if (erase_from_cube(path, erasure.ids)) {
      erasure.cubes.push_back(path);
    }
  }
}

Erasure erase_records(Store& store, const Scope& scope, const std::vector<std::string>* ids,
                      const EraseOptions& options) {
  Erasure erasure;
  Remains remains;
  std::vector<std::string> cubes;
  int64_t owner = 0;
  const auto body = [&](Time time) {
    erasure = {};
    cubes.clear();
    remains = {};
    Database& db = store.database();
    owner = store.scope_number(scope);
    db.query("SELECT path FROM copy WHERE scope = ? ORDER BY path", {owner},
             [&](const SqlRow& row) { cubes.push_back(row.text(0)); });
    std::vector<int64_t> numbers;
    if (ids != nullptr) {
      for (const std::string& id : *ids) {
        const int64_t number = store.record_number(owner, id);
        store.load(number);  // refuses what is erased already
        if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) numbers.push_back(number);
      }
    } else {
      db.query("SELECT num FROM record WHERE scope = ? AND state <> ? ORDER BY num",
               {owner, static_cast<int64_t>(State::kErased)},
               [&](const SqlRow& row) { numbers.push_back(row.integer(0)); });
    }
    add_derived(db, numbers, !options.derived);
    std::vector<int64_t> all = numbers;
    add_derived(db, all, false);
    for (size_t i = numbers.size(); i < all.size(); ++i) erasure.derived.push_back(id_of(db, all[i]));
    DerivedFiles files(store, scope.tenant);
    for (const int64_t number : numbers) {
      erasure.ids.push_back(id_of(db, number));
      files.add(number);
      if (options.dry_run) continue;
      if (options.verify) collect(db, number, remains);
      erase_one(store, owner, number, time);
    }
    // Before the commit: killed here, the record is still there and can be erased again.
    files.remove(options.dry_run, erasure.files, erasure.files_left);
    if (ids == nullptr && !options.dry_run && owner != 0) {
      db.execute("UPDATE scope SET user_name = ? WHERE num = ?", {fmt::format("\x1f""erased-{}", owner), owner});
    }
  };
  if (options.dry_run) {
    store.read(scope, [&] { body(0); });
    return erasure;
  }
  store.write(scope, body);
  erase_in_cubes(cubes, erasure);
  store.vectors().purge(scope, owner, ids == nullptr);
  store.database().scrub(false);
  if (!options.verify) return erasure;
  for (const std::string& file : erasure.files) {
    if (std::filesystem::exists(file)) {
      fail(ErrorCode::kCorruptData, "[erase] {}: expected it to be gone, found it there again", file);
    }
  }
  erasure.n_texts = remains.n_texts();
  erasure.n_too_short = remains.n_too_short();
  erasure.server_files_unseen = store.database().files().empty();
  std::vector<ByteScan::Found> left = left_over(store, remains, erasure);
  if (!left.empty()) {
    erasure.rewritten = true;
    store.database().scrub(true);
    left = left_over(store, remains, erasure);
  }
  if (!left.empty()) {
    fail(ErrorCode::kCorruptData, "[erase] {}: expected no byte of the erased texts, found {} pieces, the first at {}",
         left.front().file, left.size(), left.front().offset);
  }
  return erasure;
}

}  // namespace

Erasure erase(Store& store, const Scope& scope, std::span<const std::string> ids, const EraseOptions& options) {
  const std::vector<std::string> list(ids.begin(), ids.end());
  return erase_records(store, scope, &list, options);
}

Erasure erase_user(Store& store, const Scope& scope, const EraseOptions& options) {
  return erase_records(store, scope, nullptr, options);
}

std::vector<std::string> expired(Store& store, const Scope& scope, Time time) {
  std::vector<std::string> ids;
  store.read(scope, [&] {
    ids.clear();
    store.database().query("SELECT id FROM record WHERE scope = ? AND state <> ? AND expires_at <= ? ORDER BY num",
                           {store.scope_number(scope), static_cast<int64_t>(State::kErased), time},
                           [&](const SqlRow& row) { ids.push_back(row.text(0)); });
  });
  return ids;
}

}  // namespace mneme::recall
