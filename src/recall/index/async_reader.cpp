#include "recall/index/async_reader.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>

#include "base/error.h"
#include "base/log.h"

namespace mneme::ann {
namespace {

constexpr unsigned kDepth = 64;  ///< Reads under way at once.

std::atomic<bool> g_refused{false};

void say_once(const char* what, int reason) {
  static std::once_flag once;
  std::call_once(once, [&] {
    log().info("{} is not available here ({}); reading lists one by one", what, std::strerror(reason));
  });
}

[[noreturn]] void fail_read(int reason, const ReadRequest& request, const char* path) {
  if (reason != 0) {
    errno = reason;
    fail_errno("read", path);
  }
  fail(ErrorCode::kCorruptData, "[read] {}: expected {} bytes at offset {}, found the end of the file", path,
       request.bytes, request.offset);
}

void read_all(int file, const ReadRequest& request, size_t at, const char* path) {
  while (at < request.bytes) {
    const ssize_t n = ::pread(file, request.target + at, request.bytes - at, static_cast<off_t>(request.offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_read(n < 0 ? errno : 0, request, path);
    at += static_cast<size_t>(n);
  }
}

}  // namespace

struct AsyncReader::Ring {
  io_uring ring{};
  bool ready = false;
  ~Ring() {
    if (ready) io_uring_queue_exit(&ring);
  }
};

AsyncReader::AsyncReader() {
  if (g_refused) return;
  auto ring = std::make_unique<Ring>();
  const int rc = io_uring_queue_init(kDepth, &ring->ring, 0);
  if (rc != 0) {
    if (rc == -EPERM || rc == -ENOSYS) g_refused = true;  // it will not change; other reasons may
    say_once("io_uring", -rc);
    return;
  }
  ring->ready = true;
  ring_ = std::move(ring);
}

AsyncReader::~AsyncReader() = default;

bool AsyncReader::has_ring() {
  return AsyncReader().ring_ != nullptr;
}

void AsyncReader::refuse_ring(bool refuse) {
  g_refused = refuse;
}

void AsyncReader::read(int file, std::span<const ReadRequest> requests, FunctionRef<void(size_t)> done,
                       const char* path) {
  if (ring_ == nullptr) {
    for (size_t i = 0; i < requests.size(); ++i) {
      read_all(file, requests[i], 0, path);
      done(i);
    }
    return;
  }
  io_uring* ring = &ring_->ring;
  std::exception_ptr error;
  size_t submitted = 0, finished = 0;
  while (finished < requests.size() && !(error && finished == submitted)) {
    while (!error && submitted < requests.size() && submitted - finished < kDepth) {
      io_uring_sqe* entry = io_uring_get_sqe(ring);
      if (entry == nullptr) break;
      const ReadRequest& request = requests[submitted];
      io_uring_prep_read(entry, file, request.target, request.bytes, request.offset);
      io_uring_sqe_set_data64(entry, submitted++);
    }
    const int rc = io_uring_submit_and_wait(ring, 1);
    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
      ring_.reset();  // waits for what is under way
      errno = -rc;
      fail_errno("read", path);
    }
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(ring, &completion) == 0) {
      const size_t i = io_uring_cqe_get_data64(completion);
      const int result = completion->res;
      io_uring_cqe_seen(ring, completion);
      ++finished;
      if (error) continue;
      try {
        const bool again = result == -EINTR || result == -EAGAIN;
        if (result < 0 && !again) fail_read(-result, requests[i], path);
        if (result < static_cast<int64_t>(requests[i].bytes)) {
          read_all(file, requests[i], again ? 0 : static_cast<size_t>(result) / 4096 * 4096, path);
        }
        done(i);
      } catch (...) {
        error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

int open_direct(const char* path) {
  int file = ::open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (file < 0 && errno == EINVAL) {
    log().info("{}: its file system has no O_DIRECT; reads go through the page cache", path);
    file = ::open(path, O_RDONLY | O_CLOEXEC);
  }
  if (file < 0) fail_errno("open", path);
  return file;
}

}  // namespace mneme::ann
