#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "recall/cube.h"
#include "recall/sql/database.h"

namespace mneme::recall {

/// A row of a cube's table event.
struct CubeEvent {
  std::string record;
  uint32_t version = 0;
  Time time = 0;
  std::string operation, actor, reason, payload;
};

/// A cube file that is being written: rows go in, finish() makes the manifest and puts the file in its place.
class CubeWriter {
 public:
  CubeWriter(std::string path, CubeManifest manifest);
  CubeWriter(const CubeWriter&) = delete;
  CubeWriter& operator=(const CubeWriter&) = delete;
  ~CubeWriter();

  void add_event(const CubeEvent& event);
  void add_vector(const std::string& record, const std::string& data);
  /// A file that a record points to; a missing one is passed over, one that is there already too.
  void add_payload(const std::string& uri);
  /// The same from another cube.
  void copy_payload(Database& from, const std::string& uri);
  CubeManifest finish();

 private:
  std::string path_, part_;
  CubeManifest manifest_;
  std::unique_ptr<Database> db_;
};

/// A cube file that is read. Opening checks application id, version and manifest, not the rows.
class CubeReader {
 public:
  explicit CubeReader(const std::string& path);

  const CubeManifest& manifest() const { return manifest_; }
  Database& database() { return *db_; }
  /// Checks everything. Throws Error(kCorruptData) that says which part.
  void verify();
  /// Versions by record id, oldest first.
  std::map<std::string, std::vector<CubeEvent>> events();
  /// Vector of a record, or "".
  std::string vector(const std::string& record);
  std::vector<std::string> payload_uris();
  /// Calls `each` for the parts of a payload, in order.
  void read_payload(const std::string& uri, FunctionRef<void(const std::string&)> each);

 private:
  std::string path_;
  std::unique_ptr<Database> db_;
  CubeManifest manifest_;
};

/// Makes counts and checksum of a cube's manifest agree with its rows.
CubeManifest write_manifest(Database& cube, CubeManifest manifest);

}  // namespace mneme::recall
