#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "budget/buffer.h"

namespace mneme {

/// Write-behind: blocks wait in a queue, and a thread of its own hands them to `write` one by one. Thread-safe.
class PageWriter {
 public:
  using Block = std::shared_ptr<const GrowingBuffer>;

  /// Waiting blocks hold RAM; beyond this much, new ones are refused.
  static constexpr uint64_t kMostWaiting = uint64_t{256} << 20;

  /// `write` runs on the writer's thread and must not throw.
  explicit PageWriter(std::function<void(uint64_t hash, const Block& block)> write)
      : write_(std::move(write)), thread_([this] { run(); }) {}
  PageWriter(const PageWriter&) = delete;
  PageWriter& operator=(const PageWriter&) = delete;
  /// Writes what waits.
  ~PageWriter() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// False when too much waits already.
  bool put(uint64_t hash, Block block) {
    const std::lock_guard lock(mutex_);
    if (waiting_bytes_ + block->committed() > kMostWaiting) return false;
    waiting_bytes_ += block->committed();
    waiting_.emplace_back(hash, std::move(block));
    changed_.notify_all();
    return true;
  }
  void flush() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_.empty() && !writing_; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      auto [hash, block] = std::move(waiting_.front());
      waiting_.pop_front();
      writing_ = true;
      lock.unlock();
      const uint64_t bytes = block->committed();
      write_(hash, block);
      block.reset();
      lock.lock();
      writing_ = false;
      waiting_bytes_ -= bytes;
      changed_.notify_all();
    }
  }

  std::function<void(uint64_t, const Block&)> write_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<uint64_t, Block>> waiting_;
  uint64_t waiting_bytes_ = 0;
  bool writing_ = false, ending_ = false;
  std::thread thread_;  ///< Last: it uses the others.
};

}  // namespace mneme
