#include "context/record_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/atomic_file.h"
#include "base/checked_math.h"
#include "base/error.h"

namespace mneme {
namespace {

constexpr uint32_t kMark = 0x524d4e4d;  // "MNMR"
constexpr size_t kHeadBytes = 40, kHeadChecked = 32, kAlignment = 8;
constexpr size_t kPieceBytes = size_t{1} << 18;

/// XXH3 of what is written.
class ChecksumWriter : public StateWriter {
 public:
  ChecksumWriter() : state_(XXH3_createState()) { XXH3_64bits_reset(state_.get()); }
  void write(std::span<const std::byte> bytes) override {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
  }
  uint64_t checksum() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

/// Opens and locks the file that has this name now: between opening and locking another process may have replaced it.
int open_locked(const std::string& path) {
  for (;;) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) fail_errno("open", path);
    if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      ::close(file);
      errno = reason;
      if (reason != EWOULDBLOCK) fail_errno("lock", path);
      fail(ErrorCode::kInvalidArgument, "[open] {} is in use by another process", path);
    }
    struct stat opened {
    }, named{};
    if (::fstat(file, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino) return file;
    ::close(file);
  }
}

}  // namespace

bool LogRecord::intact() const {
  return XXH3_64bits(payload.data(), payload.size()) == checksum &&
         std::all_of(filling.begin(), filling.end(), [](std::byte b) { return b == std::byte{0}; });
}

/// The record whose head is at `offset`, if that is a head and none of a record before the expected one.
std::optional<LogRecord> RecordScanner::record_at(uint64_t offset) const {
  if (file_.size() - offset < kHeadBytes) return std::nullopt;
  const auto head = file_.subspan(offset, kHeadBytes);
  StateReader in(head, "record");
  LogRecord record;
  if (in.get<uint32_t>() != kMark) return std::nullopt;
  record.kind = in.get<uint32_t>();
  record.number = in.get<uint64_t>();
  const auto length = in.get<uint64_t>();
  record.checksum = in.get<uint64_t>();
  if (record.number < number_ || XXH3_64bits(head.data(), kHeadChecked) != in.get<uint64_t>()) return std::nullopt;
  const uint64_t room = file_.size() - offset - kHeadBytes;
  const auto padded = checked_round_up<uint64_t>(length, kAlignment);
  if (!padded || *padded > room) return std::nullopt;
  record.payload = file_.subspan(offset + kHeadBytes, length);
  record.filling = file_.subspan(offset + kHeadBytes + length, *padded - length);
  record.end = offset + kHeadBytes + *padded;
  return record;
}

std::optional<LogRecord> RecordScanner::next() {
  for (uint64_t offset = end_; offset < file_.size(); offset += kAlignment) {
    const auto record = record_at(offset);
    if (!record) continue;
    damaged_ |= offset != end_ || record->number != number_;
    end_ = record->end;
    number_ = record->number + 1;
    return record;
  }
  return std::nullopt;
}

class RecordLog::FileWriter : public StateWriter {
 public:
  explicit FileWriter(RecordLog& log) : log_(log) {}
  void write(std::span<const std::byte> bytes) override { log_.write(bytes); }

 private:
  RecordLog& log_;
};

RecordLog::RecordLog(std::string path) : path_(std::move(path)), file_(open_locked(path_)) {
  struct stat status {};
  if (::fstat(file_, &status) != 0) fail_errno("open", path_);
  written_ = static_cast<uint64_t>(status.st_size);
}

RecordLog::RecordLog(RecordLog&& other) noexcept {
  *this = std::move(other);
}

RecordLog& RecordLog::operator=(RecordLog&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(written_, other.written_);
  std::swap(next_number_, other.next_number_);
  std::swap(pending_, other.pending_);
  return *this;
}

RecordLog::~RecordLog() {
  if (file_ >= 0) ::close(file_);
}

void RecordLog::cut(uint64_t end, uint64_t next_number) {
  pending_.clear();
  if (::ftruncate(file_, static_cast<off_t>(end)) != 0) fail_errno("cut", path_);
  written_ = end;
  next_number_ = next_number;
}

uint64_t RecordLog::record_bytes(uint64_t payload_bytes) {
  return kHeadBytes + round_up<uint64_t>(payload_bytes, kAlignment);
}

void RecordLog::append(uint32_t kind, FunctionRef<void(StateWriter&)> payload) {
  CountingWriter size;
  payload(size);
  ChecksumWriter checksum;
  payload(checksum);
  std::array<std::byte, kHeadBytes> head{};
  SpanWriter fields(head);
  fields.put(kMark);
  fields.put(kind);
  fields.put(next_number_);
  fields.put<uint64_t>(size.bytes());
  fields.put(checksum.checksum());
  fields.put<uint64_t>(XXH3_64bits(head.data(), kHeadChecked));
  write(head);
  FileWriter out(*this);
  payload(out);
  const std::array<std::byte, kAlignment> zeros{};
  write(std::span(zeros).first(round_up<size_t>(size.bytes(), kAlignment) - size.bytes()));
  ++next_number_;
}

void RecordLog::write(std::span<const std::byte> bytes) {
  if (pending_.size() + bytes.size() > kPieceBytes) flush();
  if (bytes.size() < kPieceBytes) {
    pending_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return;
  }
  write_through(bytes);
}

void RecordLog::write_through(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(written_));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_errno("write", path_);
    written_ += static_cast<uint64_t>(done);
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
}

void RecordLog::flush() {
  write_through(std::as_bytes(std::span(pending_)));
  pending_.clear();
}

void RecordLog::sync() {
  flush();
  if (::fdatasync(file_) != 0) fail_errno("sync", path_);
}

void RecordLog::rename(const std::string& path) {
  sync();
  rename_durably(path_, path);
  path_ = path;
}

}  // namespace mneme
