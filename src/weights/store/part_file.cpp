#include "weights/store/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"

namespace mneme {

PartFile::PartFile(const std::string& path) : path_(path), part_(path + ".part"), state_(path + ".part.json") {
  file_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file_ < 0) fail_errno("open", part_);
  if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    ::close(file_);
    fail(ErrorCode::kIo, "[pull] {} is being fetched by another process", path_);
  }
  struct stat status {};
  if (::fstat(file_, &status) != 0) {
    ::close(file_);
    fail_errno("read", part_);
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

PartFile::~PartFile() {
  ::close(file_);
}

std::optional<PartState> PartFile::load_state() const {
  constexpr uint64_t kMostBytes = 1 << 16;
  try {
    const Json json = parse_json(read_text_file(state_, kMostBytes), state_);
    PartState state{json.at("url").get<std::string>(), json.at("validator").get<std::string>(), std::nullopt,
                    json.value("sha256", std::string())};
    if (json.contains("bytes")) state.total = json["bytes"].get<uint64_t>();
    return state;
  } catch (const Error&) {
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

void PartFile::save_state(const PartState& state) const {
  Json json = {{"url", state.url}, {"validator", state.validator}};
  if (state.total) json["bytes"] = *state.total;
  if (!state.sha256.empty()) json["sha256"] = state.sha256;
  AtomicFile file(state_);
  file.write(json.dump(2, ' ', false, Json::error_handler_t::replace));
  file.commit();
}

void PartFile::hash_existing() {
  hash_.reset();
  std::vector<std::byte> buffer(size_t{1} << 20);
  for (uint64_t at = 0; at < size_;) {
    const ssize_t n = ::pread(file_, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_errno("read", part_);
    hash_.update({buffer.data(), static_cast<size_t>(n)});
    at += static_cast<uint64_t>(n);
  }
}

void PartFile::restart() {
  if (::ftruncate(file_, 0) != 0) fail_errno("truncate", part_);
  size_ = 0;
  hash_.reset();
}

void PartFile::append(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(size_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("write", part_);
    size_ += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void PartFile::finish() {
  if (::fsync(file_) != 0) fail_errno("sync", part_);
  if (::rename(part_.c_str(), path_.c_str()) != 0) fail_errno("rename", path_);
  ::unlink(state_.c_str());
}

void PartFile::discard() {
  ::unlink(part_.c_str());
  ::unlink(state_.c_str());
}

}  // namespace mneme
