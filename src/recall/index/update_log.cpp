#include "recall/index/update_log.h"

#include <xxhash.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "recall/index/byte_reader.h"

namespace mneme::ann {
namespace {

constexpr uint64_t kMagic = 0x474F4C4D454E4Du;  // "MNEMLOG" and a zero byte
constexpr uint32_t kVersion = 1;

struct LogHead {
  uint64_t magic;
  uint32_t version, dimension;
  uint64_t generation, checksum;  ///< Of the 24 bytes before.
};
static_assert(sizeof(LogHead) == 32);

struct RecordHead {
  uint32_t is_add, n_ids;
  uint64_t generation, offset;  ///< Of the log, and of this record in it: old bytes elsewhere never look sound.
  uint64_t checksum;            ///< Of the 24 bytes before and the content.
};
static_assert(sizeof(RecordHead) == 32);

uint64_t checksum_of(const void* head, const void* content, size_t bytes) {
  return XXH3_64bits_withSeed(content, bytes, XXH3_64bits(head, 24));
}

}  // namespace

LogContents parse_update_log(std::span<const std::byte> bytes, size_t dimension, std::string_view what) {
  ByteReader reader(bytes, what);
  const auto head = reader.get<LogHead>();
  if (head.magic != kMagic) fail(ErrorCode::kCorruptData, "[read log] {}: expected a log, found other bytes", what);
  if (head.version > kVersion) {
    fail(ErrorCode::kUnsupported, "[read log] {}: expected version {} or older, found {}", what, kVersion,
         head.version);
  }
  if (head.checksum != XXH3_64bits(&head, 24)) {
    fail(ErrorCode::kCorruptData, "[read log] {}: expected the header's checksum, found damage", what);
  }
  if (head.dimension != dimension) {
    fail(ErrorCode::kCorruptData, "[read log] {}: expected dimension {}, found {}", what, dimension, head.dimension);
  }
  LogContents contents;
  contents.generation = head.generation;
  contents.valid_bytes = bytes.size() - reader.left();
  while (reader.left() >= sizeof(RecordHead)) {
    const auto record = reader.get<RecordHead>();
    if (record.is_add > 1 || record.generation != head.generation || record.offset != contents.valid_bytes) break;
    const uint64_t size = uint64_t{record.n_ids} * (8 + (record.is_add != 0 ? 4 * dimension : 0));  // < 2^49
    if (size > reader.left()) break;
    const auto content = reader.take(size);
    if (record.checksum != checksum_of(&record, content.data(), content.size())) break;
    LogRecord out;
    out.is_add = record.is_add != 0;
    out.ids.resize(record.n_ids);
    out.rows.resize(out.is_add ? record.n_ids * dimension : 0);
    ByteReader fields(content, what);
    fields.get_all(std::span(out.ids));
    fields.get_all(std::span(out.rows));
    contents.records.push_back(std::move(out));
    contents.valid_bytes = bytes.size() - reader.left();
  }
  return contents;
}

UpdateLog::UpdateLog(std::unique_ptr<DurableFile> file, uint64_t generation, size_t dimension)
    : file_(std::move(file)), generation_(generation), end_(sizeof(LogHead)) {
  LogHead head{kMagic, kVersion, static_cast<uint32_t>(dimension), generation, 0};
  head.checksum = XXH3_64bits(&head, 24);
  file_->truncate(0);
  file_->write_at(0, std::as_bytes(std::span(&head, 1)));
  file_->sync();
}

UpdateLog::UpdateLog(std::unique_ptr<DurableFile> file, const LogContents& contents)
    : file_(std::move(file)), generation_(contents.generation), end_(contents.valid_bytes) {
  file_->truncate(end_);
}

void UpdateLog::append(bool is_add, std::span<const uint64_t> ids, std::span<const float> rows, bool sync) {
  if (broken_)
    fail(ErrorCode::kIo, "[write log] {}: expected a sound log, found one that failed before; open it anew", path());
  std::vector<std::byte> record(sizeof(RecordHead) + ids.size_bytes() + rows.size_bytes());
  std::byte* content = record.data() + sizeof(RecordHead);
  std::memcpy(content, ids.data(), ids.size_bytes());
  if (!rows.empty()) std::memcpy(content + ids.size_bytes(), rows.data(), rows.size_bytes());
  RecordHead head{is_add ? 1u : 0u, static_cast<uint32_t>(ids.size()), generation_, end_, 0};
  head.checksum = checksum_of(&head, content, record.size() - sizeof head);
  std::memcpy(record.data(), &head, sizeof head);
  bool written = false;
  try {
    file_->write_at(end_, record);
    written = true;
    if (sync) file_->sync();
  } catch (const Error&) {
    // A failed sync may have dropped pages that the next one no longer reports; and what cannot be cut off might be
    // replayed. Neither may be built upon.
    broken_ = written;
    try {
      file_->truncate(end_);
    } catch (const Error&) {
      broken_ = true;
    }
    throw;
  }
  end_ += record.size();
}

}  // namespace mneme::ann
