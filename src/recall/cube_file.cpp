#include "recall/cube_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "recall/sql/sqlite_database.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

constexpr int64_t kApplicationId = 0x6D6E656D;  // "mnem"
constexpr size_t kPartBytes = size_t{4} << 20;

std::string checksum(std::initializer_list<std::string_view> fields) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  for (const std::string_view field : fields) {
    const uint64_t size = field.size();
    XXH3_128bits_update(state, &size, sizeof(size));
    XXH3_128bits_update(state, field.data(), field.size());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string checksum(const CubeEvent& e) {
  return checksum({e.record, std::to_string(e.version), std::to_string(e.time), e.operation, e.actor, e.reason, e.payload});
}

constexpr const char* kRowChecksums =
    "SELECT checksum FROM (SELECT 1 AS part, record AS a, version AS b, checksum FROM event UNION ALL"
    " SELECT 2, record, 0, checksum FROM vector UNION ALL SELECT 3, uri, part, checksum FROM payload) ORDER BY part, a, b";

std::string total_checksum(Database& db) {
  std::string all;
  db.query(kRowChecksums, {}, [&](const SqlRow& row) { all += row.text(0); });
  return checksum({all});
}

constexpr const char* kEventColumns = "SELECT record, version, time, operation, actor, reason, payload, checksum FROM event";

CubeEvent event_of(const SqlRow& row) {
  return {row.text(0), static_cast<uint32_t>(row.integer(1)), row.integer(2), row.text(3), row.text(4), row.text(5),
          row.text(6)};
}

uint64_t count(Database& db, const char* what) {
  return static_cast<uint64_t>(db.integer(fmt::format("SELECT COUNT({}", what), {}));
}

}  // namespace

CubeManifest write_manifest(Database& db, CubeManifest manifest) {
  manifest.records = count(db, "DISTINCT record) FROM event");
  manifest.events = count(db, "*) FROM event");
  manifest.vectors = count(db, "*) FROM vector");
  manifest.payloads = count(db, "DISTINCT uri) FROM payload");
  manifest.checksum = total_checksum(db);
  db.execute("DELETE FROM manifest");
  db.execute("INSERT INTO manifest(json) VALUES (?)", {to_json(manifest).dump()});
  return manifest;
}

CubeWriter::CubeWriter(std::string path, CubeManifest manifest)
    : path_(std::move(path)), part_(path_ + ".part"), manifest_(std::move(manifest)) {
  std::error_code ignored;
  for (const char* end : {"", "-journal"}) std::filesystem::remove(part_ + end, ignored);
  SqliteOptions options;
  options.single_file = true;
  db_ = open_sqlite(part_, options);
  db_->script(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}; BEGIN IMMEDIATE", kApplicationId,
                          kCubeVersion));
  db_->script(
      "CREATE TABLE manifest(json TEXT NOT NULL);"
      "CREATE TABLE event(record TEXT NOT NULL, version INTEGER NOT NULL, time INTEGER NOT NULL, operation TEXT NOT NULL,"
      " actor TEXT NOT NULL, reason TEXT NOT NULL, payload TEXT NOT NULL, checksum TEXT NOT NULL,"
      " PRIMARY KEY(record, version));"
      "CREATE TABLE vector(record TEXT PRIMARY KEY, data BLOB NOT NULL, checksum TEXT NOT NULL);"
      "CREATE TABLE payload(uri TEXT NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL, checksum TEXT NOT NULL,"
      " PRIMARY KEY(uri, part))");
}

CubeWriter::~CubeWriter() {
  db_.reset();
  std::error_code ignored;
  for (const char* end : {"", "-journal"}) std::filesystem::remove(part_ + end, ignored);
}

void CubeWriter::add_event(const CubeEvent& e) {
  db_->execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
               {e.record, int64_t{e.version}, e.time, e.operation, e.actor, e.reason, e.payload, checksum(e)});
}

void CubeWriter::add_vector(const std::string& record, const std::string& data) {
  db_->execute("INSERT INTO vector VALUES (?, ?, ?)", {record, Bytes{data}, checksum({record, data})});
}

void CubeWriter::add_payload(const std::string& uri) {
  if (!std::filesystem::is_regular_file(uri)) return;
  if (db_->integer("SELECT COUNT(*) FROM payload WHERE uri = ?", {uri}) > 0) return;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(uri.c_str(), "rb"), std::fclose);
  if (!file) fail_errno("export cube", uri);
  std::string data(kPartBytes, '\0');
  for (int64_t part = 0;; ++part) {
    data.resize(kPartBytes);
    data.resize(std::fread(data.data(), 1, data.size(), file.get()));
    if (std::ferror(file.get()) != 0) fail_errno("export cube", uri);
    if (data.empty() && part > 0) break;
    db_->execute("INSERT INTO payload VALUES (?, ?, ?, ?)",
                 {uri, part, Bytes{data}, checksum({uri, std::to_string(part), data})});
    if (data.size() < kPartBytes) break;
  }
}

void CubeWriter::copy_payload(Database& from, const std::string& uri) {
  if (db_->integer("SELECT COUNT(*) FROM payload WHERE uri = ?", {uri}) > 0) return;
  from.query("SELECT part, data, checksum FROM payload WHERE uri = ? ORDER BY part", {uri}, [&](const SqlRow& row) {
    db_->execute("INSERT INTO payload VALUES (?, ?, ?, ?)", {uri, row.integer(0), Bytes{row.bytes(1)}, row.text(2)});
  });
}

CubeManifest CubeWriter::finish() {
  manifest_ = write_manifest(*db_, manifest_);
  db_->script("COMMIT");
  db_.reset();
  std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  if (folder.empty()) folder = ".";
  if (std::rename(part_.c_str(), path_.c_str()) != 0) fail_errno("write cube", path_);
  const int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || fsync(directory) != 0) {
    if (directory >= 0) close(directory);
    fail_errno("write cube", folder.string());
  }
  close(directory);
  return manifest_;
}

CubeReader::CubeReader(const std::string& path) : path_(path) {
  if (!std::filesystem::exists(path)) fail(ErrorCode::kNotFound, "[open cube] {}: no such file", path);
  SqliteOptions options;
  options.read_only = true;
  db_ = open_sqlite(path, options);
  if (db_->integer("PRAGMA application_id", {}) != kApplicationId) {
    fail(ErrorCode::kCorruptData, "[open cube] {}: expected a cube, found another kind of SQLite file", path);
  }
  const int64_t version = db_->integer("PRAGMA user_version", {});
  if (version > kCubeVersion || version < 1) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("[open cube] {}: expected version 1 to {}, found {}", path, kCubeVersion, version),
                version > kCubeVersion ? "a newer mneme wrote it" : "");
  }
  std::string text;
  db_->query("SELECT json FROM manifest", {}, [&](const SqlRow& row) { text = row.text(0); });
  try {
    const Json json = parse_json(text, path + ": manifest");
    manifest_.version = json.at("version").get<int>();
    manifest_.name = json.at("name").get<std::string>();
    manifest_.created = parse_time(json.at("created").get<std::string>());
    manifest_.records = json.at("records").get<uint64_t>();
    manifest_.events = json.at("events").get<uint64_t>();
    manifest_.vectors = json.at("vectors").get<uint64_t>();
    manifest_.payloads = json.at("payloads").get<uint64_t>();
    manifest_.embedding_model = json.at("embedding_model").get<std::string>();
    manifest_.embedding_dimension = json.at("embedding_dimension").get<uint32_t>();
    manifest_.checksum = json.at("checksum").get<std::string>();
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptData, "[open cube] {}: manifest: {}", path, brief_text(e.what(), 120));
  }
}

void CubeReader::verify() {
  db_->check_integrity();
  const auto damaged = [&](const std::string& part) {
    fail(ErrorCode::kCorruptData, "[verify cube] {}: expected the checksum of {}, found another", path_, part);
  };
  uint64_t events = 0, vectors = 0;
  db_->query(kEventColumns, {}, [&](const SqlRow& row) {
    const CubeEvent event = event_of(row);
    const std::string what = fmt::format("version {} of record {}", event.version, brief_text(event.record));
    if (checksum(event) != row.text(7)) damaged(what);
    Record record = record_from_json(parse_json(event.payload, path_ + ": " + what), path_ + ": " + what);
    if (record.id != event.record) damaged(what);
    normalise(record);
    ++events;
  });
  db_->query("SELECT record, data, checksum FROM vector", {}, [&](const SqlRow& row) {
    const std::string data = row.bytes(1);
    if (checksum({row.text(0), data}) != row.text(2) || data.size() != manifest_.embedding_dimension * sizeof(float)) {
      damaged("the vector of record " + brief_text(row.text(0)));
    }
    ++vectors;
  });
  db_->query("SELECT uri, part, data, checksum FROM payload", {}, [&](const SqlRow& row) {
    if (checksum({row.text(0), std::to_string(row.integer(1)), row.bytes(2)}) != row.text(3)) {
      damaged("payload " + brief_text(row.text(0)));
    }
  });
  if (events != manifest_.events || vectors != manifest_.vectors || total_checksum(*db_) != manifest_.checksum) {
    damaged("all rows");
  }
}

std::map<std::string, std::vector<CubeEvent>> CubeReader::events() {
  std::map<std::string, std::vector<CubeEvent>> all;
  db_->query(std::string(kEventColumns) + " ORDER BY record, version", {}, [&](const SqlRow& row) {
    CubeEvent event = event_of(row);
    all[event.record].push_back(std::move(event));
  });
  return all;
}

std::string CubeReader::vector(const std::string& record) {
  std::string data;
  db_->query("SELECT data FROM vector WHERE record = ?", {record}, [&](const SqlRow& row) { data = row.bytes(0); });
  return data;
}

std::vector<std::string> CubeReader::payload_uris() {
  std::vector<std::string> uris;
  db_->query("SELECT DISTINCT uri FROM payload ORDER BY uri", {}, [&](const SqlRow& row) { uris.push_back(row.text(0)); });
  return uris;
}

void CubeReader::read_payload(const std::string& uri, FunctionRef<void(const std::string&)> each) {
  db_->query("SELECT data FROM payload WHERE uri = ? ORDER BY part", {uri},
             [&](const SqlRow& row) { each(row.bytes(0)); });
}

}  // namespace mneme::recall
