#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/function_ref.h"
#include "context/state_io.h"

namespace mneme {

/// A record of a log, as its head tells.
struct LogRecord {
  uint32_t kind = 0;
  uint64_t number = 0;                 ///< 0, 1, 2, ... in the file.
  uint64_t checksum = 0;               ///< XXH3 of the payload.
  std::span<const std::byte> payload;  ///< Inside the bytes that were scanned.
  std::span<const std::byte> filling;  ///< Zeros behind it.
  uint64_t end = 0;                    ///< Offset behind the record.

  /// Whether every byte is what was written. Reads all of the payload.
  bool intact() const;
};

/// Walks over the records of a log. Heads are verified at once, payloads when intact() is asked.
///
/// A log is a sequence of records, without anything before or between them. A record is a head of 40 bytes (mark, kind,
/// number, length, checksum of the payload, checksum of the head) and the payload, filled up with zeros to a multiple
/// of 8 bytes. docs/formats/session.md has the table.
class RecordScanner {
 public:
  explicit RecordScanner(std::span<const std::byte> file) : file_(file) {}

  /// The next record, or nothing when no more heads verify. Where a head does not verify but a later one does, the
  /// records between are skipped and damaged() is set; what stands behind the last one is a write that was cut short.
  std::optional<LogRecord> next();
  bool damaged() const { return damaged_; }

 private:
  std::optional<LogRecord> record_at(uint64_t offset) const;

  std::span<const std::byte> file_;
  uint64_t end_ = 0, number_ = 0;
  bool damaged_ = false;
};

/// A log that is being appended to. Holds an exclusive lock on the file. Move-only.
///
/// Bytes are collected and written in large pieces; flush() hands them to the kernel, from where a killed process
/// cannot lose them; sync() makes them survive a power cut.
class RecordLog {
 public:
  /// Opens a file, or creates an empty one, and locks it. Throws Error(kIo), and Error(kInvalidArgument) when another
  /// process holds the lock.
  explicit RecordLog(std::string path);
  RecordLog(RecordLog&& other) noexcept;
  RecordLog& operator=(RecordLog&& other) noexcept;
  RecordLog(const RecordLog&) = delete;
  RecordLog& operator=(const RecordLog&) = delete;
  ~RecordLog();

  const std::string& path() const { return path_; }
  /// Bytes of the file, with what is still collected.
  uint64_t bytes() const { return written_ + pending_.size(); }
  uint64_t next_number() const { return next_number_; }

  /// Cuts the file behind a record and goes on there.
  void cut(uint64_t end, uint64_t next_number);
  /// Appends a record. `payload` is called three times (size, checksum, bytes) and must write the same each time.
  /// Throws Error(kIo), a full disk included; the file then ends with half a record until cut().
  void append(uint32_t kind, FunctionRef<void(StateWriter&)> payload);
  /// Bytes that append() would add.
  static uint64_t record_bytes(uint64_t payload_bytes);
  void flush();
  void sync();
  /// Gives the file, synced, another name in place of what has that name.
  void rename(const std::string& path);

 private:
  class FileWriter;
  void write(std::span<const std::byte> bytes);
  void write_through(std::span<const std::byte> bytes);

  std::string path_;
  int file_ = -1;
  uint64_t written_ = 0, next_number_ = 0;
  std::string pending_;
};

}  // namespace mneme
