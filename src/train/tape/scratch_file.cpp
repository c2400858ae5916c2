#include "train/tape/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/unnamed_file.h"

namespace mneme::train {
ScratchFile::ScratchFile(Ledger& ledger, const std::string& folder, size_t bytes, size_t max_pending)
    : bytes_(bytes),
      reservation_(ledger.reserve(Tag::kActivation, bytes, "activations in a scratch file", Tier::kDisk)),
      folder_(folder),
      file_(open_unnamed(folder)),
      ring_(std::max<size_t>(1, max_pending)) {
  const int status = bytes > 0 ? ::posix_fallocate(file_, 0, static_cast<off_t>(bytes)) : 0;
  if (status != 0) {
    ::close(file_);
    fail(ErrorCode::kIo, "[offload] expected room for {} bytes in {}, found: {}", bytes, folder, std::strerror(status));
  }
  thread_ = std::thread([this] { work(); });
}

ScratchFile::~ScratchFile() {
  {
    const std::scoped_lock lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
  ::close(file_);
}

uint64_t ScratchFile::write(const std::byte* from, size_t bytes, size_t offset) {
  return ask({const_cast<std::byte*>(from), bytes, offset, true});
}

uint64_t ScratchFile::read(std::byte* to, size_t bytes, size_t offset) {
  return ask({to, bytes, offset, false});
}

uint64_t ScratchFile::ask(const Transfer& transfer) {
  if (transfer.offset > bytes_ || transfer.bytes > bytes_ - transfer.offset) {
    fail(ErrorCode::kInvalidArgument, "[offload] expected a place inside {} bytes, found {} at {}", bytes_,
         transfer.bytes, transfer.offset);
  }
  uint64_t ticket = 0;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_ - done_ < ring_.size(); });
    ring_[asked_ % ring_.size()] = transfer;
    ticket = ++asked_;
  }
  changed_.notify_all();
  return ticket;
}

void ScratchFile::wait(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= ticket; });
  if (!error_.empty()) throw Error(ErrorCode::kIo, error_, "train with more memory, or on another disk");
}

void ScratchFile::drain() noexcept {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ == asked_; });
}

void ScratchFile::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closing_ || done_ < asked_; });
    if (done_ == asked_) return;
    const Transfer transfer = ring_[done_ % ring_.size()];
    const bool skip = !error_.empty();
    lock.unlock();
    std::string error;
    try {
      if (!skip) move(transfer);
    } catch (const Error& e) {
      error = e.what();
    }
    lock.lock();
    if (!error.empty()) error_ = error;
    ++done_;
    changed_.notify_all();
  }
}

void ScratchFile::move(const Transfer& transfer) {
  for (size_t at = 0; at < transfer.bytes;) {
    std::byte* memory = transfer.memory + at;
    const auto offset = static_cast<off_t>(transfer.offset + at);
    const ssize_t n = transfer.write ? ::pwrite(file_, memory, transfer.bytes - at, offset)
                                     : ::pread(file_, memory, transfer.bytes - at, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(transfer.write ? "write" : "read", "the scratch file in " + folder_);
    if (n == 0) {
      fail(ErrorCode::kIo, "[offload] expected {} bytes at {}, found the end of the scratch file in {}", transfer.bytes,
           transfer.offset, folder_);
    }
    at += static_cast<size_t>(n);
  }
}

}  // namespace mneme::train
