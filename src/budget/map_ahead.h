#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "budget/mapped_range.h"
#include "budget/page_pool.h"

namespace mneme {

/// The thread that maps units of ranges ahead of need, so that whoever fills them does not wait for the system (the
/// background thread of vAttention, arXiv 2405.04437). A unit that is mapped becomes a spare behind its range: in the
/// ledger's account under kCache, taken by the range when it grows, or by the ledger when somebody else needs it.
///
/// The ledger is asked where a unit is asked for, not here. All members are guarded by the pool's mutex,
/// which callers hold. The thread starts with the first unit.
class MapAhead {
 public:
  /// A unit to map. Its pages are counted; they have no memory yet.
  struct Unit {
    MappedRange::Core* core;
    size_t index;
    std::shared_ptr<PageRun::Pages> pages;
  };

  explicit MapAhead(PagePool& pool) : pool_(pool) {}
  MapAhead(const MapAhead&) = delete;
  MapAhead& operator=(const MapAhead&) = delete;
  /// Ends the thread. REQUIRES that nothing is queued: ranges are gone before their pool.
  ~MapAhead();

  /// Queues a unit behind those that a range uses; its core has a slot for it. Throws std::system_error when there can
  /// be no thread; then the unit stays the caller's.
  void ask(Unit& unit);
  bool asked(const MappedRange::Core& core, size_t index) const;
  /// Takes back what is queued for `core` (null: for all) and waits until nothing of it is under way. The units may end
  /// only when `lock` is gone.
  [[nodiscard]] std::vector<Unit> settle(std::unique_lock<std::mutex>& lock, const MappedRange::Core* core);
  /// Waits until all that was asked for is mapped.
  void wait(std::unique_lock<std::mutex>& lock);
  /// Bytes queued and under way.
  uint64_t bytes() const;

 private:
  void work();
  bool map(const Unit& unit);

  PagePool& pool_;
  std::deque<Unit> queue_;
  const MappedRange::Core* core_ = nullptr;  ///< Under way, with
  size_t index_ = 0, bytes_ = 0;
  bool ending_ = false;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace mneme
