#include "budget/map_ahead.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"

namespace mneme {

MapAhead::~MapAhead() {
  {
    const std::lock_guard lock(pool_.mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MapAhead::ask(Unit& unit) {
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  queue_.push_back(std::move(unit));
  changed_.notify_all();
}

bool MapAhead::asked(const MappedRange::Core& core, size_t index) const {
  if (core_ == &core && index_ == index) return true;
  return std::any_of(queue_.begin(), queue_.end(),
                     [&](const Unit& unit) { return unit.core == &core && unit.index == index; });
}

std::vector<MapAhead::Unit> MapAhead::settle(std::unique_lock<std::mutex>& lock, const MappedRange::Core* core) {
  std::vector<Unit> dropped;
  std::erase_if(queue_, [&](Unit& unit) {
    if (core != nullptr && unit.core != core) return false;
    dropped.push_back(std::move(unit));
    return true;
  });
  changed_.wait(lock, [&] { return core_ == nullptr || (core != nullptr && core_ != core); });
  return dropped;
}

void MapAhead::wait(std::unique_lock<std::mutex>& lock) {
  changed_.wait(lock, [&] { return core_ == nullptr && queue_.empty(); });
}

uint64_t MapAhead::bytes() const {
  uint64_t sum = core_ != nullptr ? bytes_ : 0;
  for (const Unit& unit : queue_) sum += unit.core->unit;
  return sum;
}

void MapAhead::work() {
  std::unique_lock lock(pool_.mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !queue_.empty(); });
    if (ending_) return;
    Unit unit = std::move(queue_.front());
    queue_.pop_front();
    core_ = unit.core;
    index_ = unit.index;
    bytes_ = unit.core->unit;
    lock.unlock();
    const bool mapped = map(unit);
    if (!mapped) unit.pages.reset();  // needs the mutex
    lock.lock();
    if (mapped) {
      unit.core->slots[unit.index] = {PageRun(std::move(unit.pages)), true, true};
      pool_.count_mappings(*unit.core);
    }
    core_ = nullptr;
    changed_.notify_all();
  }
}

/// False when the system has no memory or mapping left: whoever needs the unit finds that out again.
bool MapAhead::map(const Unit& unit) {
  const auto start = std::chrono::steady_clock::now();
  std::byte* const at = unit.core->data + unit.index * unit.core->unit;
  try {
    pool_.allocate({&unit.pages, 1}, 0);
    pool_.map(at, unit.core->unit, unit.pages->offset(), true);
  } catch (const Error&) {
    PagePool::cover(at, unit.core->unit);
    return false;
  }
  pool_.count_ahead(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return true;
}

}  // namespace mneme
