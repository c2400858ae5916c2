#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "recall/index/durable_file.h"

namespace mneme::ann {

/// How files are opened; tests give files that fail.
using OpenFile = std::function<std::unique_ptr<DurableFile>(const std::string& path)>;

/// One acknowledged change.
struct LogRecord {
  bool is_add = false;
  std::vector<uint64_t> ids;
  std::vector<float> rows;  ///< [ids, dimension] for an addition, empty for a removal.
};

/// What a log holds: its records up to the first that is torn or damaged.
struct LogContents {
  uint64_t generation = 0;
  std::vector<LogRecord> records;
  uint64_t valid_bytes = 0;  ///< Length of the sound part; what follows was never acknowledged.
};

/// Reads the bytes of a log. A damaged header throws Error(kCorruptData), a newer version Error(kUnsupported); a record
/// that is torn ends the log. `what` names the source.
LogContents parse_update_log(std::span<const std::byte> bytes, size_t dimension, std::string_view what);

/// The changes since the last checkpoint of an index that lives on disk, each durable when append() returns. Record: 32
/// bytes of header (kind, ids, generation, place, checksum over header and content), ids, rows in f32.
class UpdateLog {
 public:
  /// Starts an empty log, durable when the constructor returns; any older content is lost.
  UpdateLog(std::unique_ptr<DurableFile> file, uint64_t generation, size_t dimension);
  /// Continues a log behind its sound part.
  UpdateLog(std::unique_ptr<DurableFile> file, const LogContents& contents);

  /// Throws Error(kIo) when the record is not durable, a full disk included; the log is then as before. When even that
  /// cannot be established the log refuses everything that follows.
  /// Without `sync` it returns when the kernel has the record: a kill does not lose it, a power failure may.
  void append(bool is_add, std::span<const uint64_t> ids, std::span<const float> rows, bool sync = true);
  uint64_t bytes() const { return end_; }
  const std::string& path() const { return file_->path(); }

 private:
  std::unique_ptr<DurableFile> file_;
  uint64_t generation_, end_;
  bool broken_ = false;
};

}  // namespace mneme::ann
