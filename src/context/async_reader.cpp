#include "context/async_reader.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>

#include "base/error.h"
#include "base/log.h"

namespace mneme {
namespace {

constexpr unsigned kDepth = 64;  ///< Reads under way at once.

std::atomic<bool> g_refused{false};

void say_once(const char* what, int reason) {
  static std::once_flag once;
  std::call_once(once, [&] {
    log().info("{} is not available here ({}); reading pieces of files one by one", what, std::strerror(reason));
  });
}

/// Reads what is missing from `at` on; 0, an errno or kFileEnded.
int read_plainly(const ReadRequest& request, size_t at) {
  while (at < request.bytes) {
    const ssize_t n =
        ::pread(request.file, request.target + at, request.bytes - at, static_cast<off_t>(request.offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : AsyncReader::kFileEnded;
    at += static_cast<size_t>(n);
  }
  return 0;
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

void AsyncReader::start(std::span<const ReadRequest> requests) {
  assert(n_ended_ == requests_.size());
  requests_ = requests;
  ended_.assign(requests.size(), false);
  n_submitted_ = n_ended_ = 0;
  if (ring_ == nullptr) return;
  submit();
  io_uring_submit(&ring_->ring);  // what the kernel does not take now, finish() offers again
}

/// Fills the free places of the ring.
void AsyncReader::submit() {
  while (n_submitted_ < requests_.size() && n_submitted_ - n_ended_ < kDepth) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_->ring);
    if (entry == nullptr) break;
    const ReadRequest& request = requests_[n_submitted_];
    io_uring_prep_read(entry, request.file, request.target, request.bytes, request.offset);
    io_uring_sqe_set_data64(entry, n_submitted_++);
  }
}

void AsyncReader::finish(FunctionRef<void(size_t, int)> done) {
  std::exception_ptr thrown;
  const auto end = [&](size_t i, int error) {
    ended_[i] = true;
    ++n_ended_;
    if (thrown) return;
    try {
      done(i, error);
    } catch (...) {
      thrown = std::current_exception();
    }
  };
  while (ring_ != nullptr && n_ended_ < (thrown ? n_submitted_ : requests_.size())) {
    if (!thrown) submit();
    const int rc = io_uring_submit_and_wait(&ring_->ring, 1);
    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
      say_once("io_uring", -rc);
      ring_.reset();  // waits for what is under way; all that has not been reported is read again below
      break;
    }
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(&ring_->ring, &completion) == 0) {
      const size_t i = io_uring_cqe_get_data64(completion);
      const int result = completion->res;
      io_uring_cqe_seen(&ring_->ring, completion);
      const bool again = result == -EINTR || result == -EAGAIN;
      int error = result < 0 && !again ? -result : 0;
      if (error == 0 && result < static_cast<int64_t>(requests_[i].bytes)) {
        error = read_plainly(requests_[i], again ? 0 : static_cast<size_t>(result) / 4096 * 4096);
      }
      end(i, error);
    }
  }
  for (size_t i = 0; ring_ == nullptr && i < requests_.size() && !thrown; ++i) {
    if (!ended_[i]) end(i, read_plainly(requests_[i], 0));
  }
  requests_ = {};
  n_ended_ = 0;
  if (thrown) std::rethrow_exception(thrown);
}

void AsyncReader::read(int file, std::span<ReadRequest> requests, FunctionRef<void(size_t)> done, const char* path) {
  for (ReadRequest& request : requests) request.file = file;
  start(requests);
  finish([&](size_t i, int error) {
    if (error == kFileEnded) {
      fail(ErrorCode::kCorruptData, "[read] {}: expected {} bytes at offset {}, found the end of the file", path,
           requests[i].bytes, requests[i].offset);
    }
    if (error != 0) {
      errno = error;
      fail_errno("read", path);
    }
    done(i);
  });
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

}  // namespace mneme
