#pragma once

#include <mutex>
#include <shared_mutex>

namespace mneme::ann {

/// A shared mutex on which a waiting writer comes before readers that arrive after it; the standard one may let readers
/// pass for ever.
class ReaderWriterLock {
 public:
  void lock() {
    gate_.lock();
    mutex_.lock();
  }
  void unlock() {
    mutex_.unlock();
    gate_.unlock();
  }
  void lock_shared() {
    const std::lock_guard wait(gate_);
    mutex_.lock_shared();
  }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  std::mutex gate_;
  std::shared_mutex mutex_;
};

}  // namespace mneme::ann
