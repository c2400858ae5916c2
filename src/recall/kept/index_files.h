#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/function_ref.h"
#include "recall/index/index_choice.h"
#include "recall/record.h"

namespace mneme::recall {

/// The newest event of a scope that an index knows of. Times of events grow with every transaction (Store::write), so
/// what came after is what has a later time.
struct IndexCursor {
  Time time = 0;
  int64_t sequence = 0;
  bool operator==(const IndexCursor&) const = default;
};

/// What is said of a kept index in its state file.
struct IndexState {
  std::optional<ann::IndexKind> kind;  ///< Nothing: none is kept, and none that is older than `cursor` may be.
  std::string file;                    ///< Name of its file, or folder, beside the state.
  std::string model;                   ///< Embedding model.
  uint32_t dimension = 0;
  uint64_t vectors = 0;
  IndexCursor cursor;
};

/// A lock that processes take on a file (flock); given back at the end.
class FileLock {
 public:
  FileLock(FileLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  FileLock& operator=(FileLock&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~FileLock();
  /// Nothing when somebody holds it for longer than `wait_ms`. Makes the file. Throws Error(kIo).
  static std::optional<FileLock> take(const std::string& path, int wait_ms);

 private:
  explicit FileLock(int file) : file_(file) {}
  int file_;
};

/// The files of one scope's vector index in the index folder of a store, N being the scope's number:
///
///   N.state          JSON: what is kept, up to which event; names the next
///   N-RANDOM.exact   or .hnsw: a file that never changes; or .spann: a folder with one writer
///   N.lock           held while N.state is replaced and files that it does not name are removed
///
/// Whoever knows of a later event than the state does may replace it, nobody else; so an index that a process still has
/// in memory from before an erasure never comes back.
class IndexFiles {
 public:
  /// `store` names the database; files of another one count as missing.
  IndexFiles(std::string folder, std::string store, int64_t scope);

  /// Nothing when there is none, it is damaged, or of another store.
  std::optional<IndexState> read() const;
  /// A name that was never used.
  std::string new_name(ann::IndexKind kind) const;
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  /// Lets `write` make the file that `state` names, makes `state` the scope's, and removes all other files of the
  /// scope. False when the state there knows of a later event, or somebody holds the lock for longer than `wait_ms`;
  /// then nothing was written. Throws Error(kIo).
  bool publish(const IndexState& state, int wait_ms, FunctionRef<void()> write) const;
  /// Removes everything of the scope.
  void remove_all() const;

  int64_t scope() const { return scope_; }

 private:
  void remove_but(const std::string& kept) const;
  std::string own(const char* end) const;

  std::string folder_, store_;
  int64_t scope_;
};

/// Scopes with a state file in an index folder.
std::vector<int64_t> scopes_with_index(const std::string& folder);
/// All files in an index folder.
std::vector<std::string> index_files_in(const std::string& folder);

}  // namespace mneme::recall
