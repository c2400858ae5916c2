#pragma once

#include <span>
#include <string>
#include <vector>

#include "recall/store.h"

namespace mneme::recall {

/// A cube is one portable SQLite file with a set of records: all versions, vectors, payload files and a manifest with
/// checksums. Format: docs/formats/cube.md.
constexpr int kCubeVersion = 1;

struct CubeManifest {
  int version = kCubeVersion;
  std::string name;
  Time created = 0;
  uint64_t records = 0, events = 0, vectors = 0, payloads = 0;
  std::string embedding_model;
  uint32_t embedding_dimension = 0;
  std::string checksum;  ///< XXH3-128 over the checksums of all rows, in hexadecimal.
};
Json to_json(const CubeManifest& manifest);

struct CubeExport {
  std::string name;                 ///< Default: the user's.
  std::vector<std::string> ids;     ///< Empty: all that are not erased.
  bool with_history = true;         ///< Older versions and their events too.
  bool with_payloads = true;        ///< Files that records point to (KV segments, adapters) as long as they exist.
};

/// Writes a cube; it appears complete or not at all, and the store remembers where, so that erasure reaches it.
CubeManifest export_cube(Store& store, const Scope& scope, const std::string& path, const CubeExport& options = {});

/// What an import or merge did with each record.
struct CubeMerge {
  size_t added = 0, updated = 0;
  size_t unchanged = 0;  ///< The same, or older than what is there.
  size_t refused = 0;    ///< Erased here: what was erased does not come back.
  size_t conflicts = 0;  ///< Changed on both sides since they parted; the version recorded last has won, both are kept.
  size_t payloads = 0;   ///< Files written.
};

/// Takes the records of a cube into a user's memory, in one transaction; doing it again changes nothing. A record that is
/// there already gets the cube's version if that is newer. Whoever the records belonged to, they are this user's now.
/// Payload files are written beside the store, into `payload_folder`.
CubeMerge import_cube(Store& store, const Scope& scope, const std::string& path, const std::string& payload_folder = {});

/// Writes `out` with the records of several cubes; of a record that several hold, the version recorded last, with its
/// history.
CubeManifest merge_cubes(std::span<const std::string> paths, const std::string& out, const std::string& name);

struct CubeDiff {
  std::vector<std::string> only_first, only_second, changed;  ///< Ids; changed: another newest version.
};
CubeDiff diff_cubes(const std::string& first, const std::string& second);

/// Checks file, checksums and every record of a cube. Throws Error(kCorruptData) that says which part, Error(kUnsupported)
/// for a newer version.
CubeManifest verify_cube(const std::string& path);

/// Records of a cube, newest versions, by id.
std::vector<Record> read_cube(const std::string& path);

/// Takes records out of a cube, for good. False when it holds none of them.
bool erase_from_cube(const std::string& path, std::span<const std::string> ids);

}  // namespace mneme::recall
