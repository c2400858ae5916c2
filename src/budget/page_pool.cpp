#include "budget/page_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/byte_size.h"
#include "base/error.h"
#include "budget/map_ahead.h"

namespace mneme {
namespace {

#ifndef MADV_POPULATE_READ
constexpr int MADV_POPULATE_READ = 22, MADV_POPULATE_WRITE = 23;
#endif

/// Fills the page tables now instead of one page at each first touch. The pages exist, so only the tables could fail.
void populate(std::byte* start, size_t bytes, bool writable) {
  int result = 0;
  do {
    result = ::madvise(start, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EINVAL) {  // EINVAL: a system before Linux 5.14, which fills them at first touch
    fail(ErrorCode::kOutOfBudget, "[map pages] the system has no memory left for {} bytes: {}", bytes,
         std::strerror(errno));
  }
}

std::atomic<uint64_t> bytes_of_all_pools{0};

uint64_t mappings_allowed() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  uint64_t n = 0;
  return file >> n ? n : 65530;
}

}  // namespace

// Places in the file --------------------------------------------------------------------------------------------------

FileWindow::FileWindow(PagePool& owner, size_t size, size_t unit) : pool(owner), bytes(size), taken(size / unit) {
  const std::lock_guard lock(pool.mutex_);
  for (auto part = pool.free_.begin(); part != pool.free_.end(); ++part) {
    if (part->second < bytes) continue;
    offset = part->first;
    const uint64_t rest = part->second - bytes;
    pool.free_.erase(part);
    if (rest > 0) pool.free_.emplace(offset + bytes, rest);
    return;
  }
  offset = pool.end_;
  pool.end_ += bytes;
}

FileWindow::~FileWindow() {
  const std::lock_guard lock(pool.mutex_);
  auto part = pool.free_.emplace(offset, bytes).first;
  if (const auto next = std::next(part); next != pool.free_.end() && part->first + part->second == next->first) {
    part->second += next->second;
    pool.free_.erase(next);
  }
  if (part != pool.free_.begin()) {
    if (const auto before = std::prev(part); before->first + before->second == part->first) {
      before->second += part->second;
      pool.free_.erase(part);
      part = before;
    }
  }
  if (part->first + part->second == pool.end_) {
    pool.end_ = part->first;
    pool.free_.erase(part);
  }
}

PageRun::Pages::~Pages() {
  PagePool& pool = window->pool;
  if (allocated) {
    pool.allocated_ -= bytes;
    if (pool.file_ >= 0) {
      ::fallocate(pool.file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset()),
                  static_cast<off_t>(bytes));
      bytes_of_all_pools -= bytes;
    }
  }
  const std::lock_guard lock(pool.mutex_);
  window->taken[place] = false;
}

size_t PageRun::bytes() const {
  return pages_ ? pages_->bytes : 0;
}

// Pool ----------------------------------------------------------------------------------------------------------------

PagePool::PagePool(Ledger& ledger)
    : ledger_(ledger), most_mappings_(mappings_allowed() / 4 * 3), ahead_(std::make_unique<MapAhead>(*this)) {
  // A memory file counts as a file where the process may not have large ones (RLIMIT_FSIZE, `ulimit -f`). Ranges then
  // have anonymous memory of their own, and whoever wants to share copies.
  rlimit files{};
  if (::getrlimit(RLIMIT_FSIZE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) {
    file_ = ::memfd_create("mneme-pages", MFD_CLOEXEC);
    if (file_ < 0) fail_errno("make page pool", "memory file");
  }
  ledger_.add_reclaimer(this);
}

PagePool::~PagePool() {
  ledger_.remove_reclaimer(this);
  ahead_.reset();
  if (file_ >= 0) ::close(file_);
}

uint64_t PagePool::bytes_of_process() {
  return bytes_of_all_pools;
}

uint64_t PagePool::file_bytes() const {
  if (file_ < 0) return 0;
  struct stat status {};
  if (::fstat(file_, &status) != 0) fail_errno("measure", "memory file");
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

PagePool::Stats PagePool::stats() const {
  Stats out;
  const std::lock_guard lock(mutex_);
  out.allocated = allocated_;
  out.used = used_;
  const auto add_spares = [&](const Core& core) {
    for (size_t i = core.n_used; i < core.slots.size(); ++i) out.spare += core.slots[i].run.bytes();
  };
  for (const Core* core : live_) add_spares(*core);
  for (const auto& core : idle_) add_spares(*core);
  out.held = out.allocated - out.used - out.spare;
  out.n_mappings = n_mappings_;
  out.map_calls = map_calls_;
  out.map_seconds = 1e-9 * static_cast<double>(map_ns_.load());
  out.ahead_seconds = 1e-9 * static_cast<double>(ahead_ns_.load());
  return out;
}

/// Pages at a place of the window, or of a window of their own where that is taken. Not allocated yet; used once.
std::shared_ptr<PageRun::Pages> PagePool::place(const std::shared_ptr<FileWindow>& window, size_t place, size_t unit,
                                                Reservation counted) {
  const auto take = [&](const std::shared_ptr<FileWindow>& in, size_t at) {
    const std::lock_guard lock(mutex_);
    if (in->taken[at]) return false;
    in->taken[at] = true;
    return true;
  };
  std::shared_ptr<FileWindow> in = window;
  if (!take(in, place)) {
    in = std::make_shared<FileWindow>(*this, unit, unit);
    place = 0;
    take(in, place);
  }
  return std::make_shared<PageRun::Pages>(std::move(in), place, unit, std::move(counted));
}

/// Gives neighbours in the file their memory, and counts them as used by n_users ranges. Throws Error(kOutOfBudget).
void PagePool::allocate(std::span<const std::shared_ptr<PageRun::Pages>> run, size_t n_users) {
  const size_t unit = run.front()->bytes;
  int result = 0;
  if (file_ >= 0) {
    do {
      result = ::fallocate(file_, 0, static_cast<off_t>(run.front()->offset()), static_cast<off_t>(run.size() * unit));
    } while (result != 0 && errno == EINTR);
  }
  if (result != 0) {
    const int reason = errno;
    ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(run.front()->offset()),
                static_cast<off_t>(run.size() * unit));
    errno = reason;
    if (reason != ENOSPC && reason != ENOMEM) fail_errno("allocate pages", "memory file");
    fail(ErrorCode::kOutOfBudget, "[allocate pages] the system has no {} of memory left",
         format_byte_size(run.size() * unit));
  }
  allocated_ += run.size() * unit;
  if (file_ >= 0) bytes_of_all_pools += run.size() * unit;
  const std::lock_guard lock(mutex_);
  for (const auto& pages : run) {
    pages->allocated = true;
    pages->n_users = n_users;
  }
  if (n_users > 0) used_ += run.size() * unit;
}

/// Shows `bytes` of the file from `offset` on at `start`, and fills the page tables. Throws Error.
void PagePool::map(std::byte* start, size_t bytes, uint64_t offset, bool writable) {
  const int rights = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const int kind = file_ >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  const off_t from = file_ >= 0 ? static_cast<off_t>(offset) : 0;
  if (::mmap(start, bytes, rights, kind | MAP_FIXED, file_, from) == MAP_FAILED) fail_errno("map pages", "page range");
  ::madvise(start, bytes, MADV_DONTFORK);
  populate(start, bytes, writable);
}

/// Makes addresses unusable. Whatever comes of it, nobody uses them.
void PagePool::cover(std::byte* start, size_t bytes) {
  ::mmap(start, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void PagePool::use(PageRun::Pages& pages, Tag tag) {
  const std::lock_guard lock(mutex_);
  if (pages.n_users++ > 0) return;
  used_ += pages.bytes;
  pages.counted.move_to(tag);
}

void PagePool::unuse(PageRun::Pages& pages) {
  const std::lock_guard lock(mutex_);
  if (--pages.n_users > 0) return;
  used_ -= pages.bytes;
  pages.counted.move_to(Tag::kCache);
}

/// A core for a new range: an ended one of the same kind, or a new one.
std::unique_ptr<PagePool::Core> PagePool::begin(size_t capacity, size_t unit, size_t n_wanted) {
  {
    const std::lock_guard lock(mutex_);
    const auto n_spares = [](const Core& core) {
      return static_cast<size_t>(
          std::count_if(core.slots.begin(), core.slots.end(), [](const auto& s) { return bool(s.run); }));
    };
    auto best = idle_.end();
    size_t best_spares = 0;
    for (auto core = idle_.begin(); core != idle_.end(); ++core) {
      if ((*core)->capacity != capacity || (*core)->unit != unit) continue;
      const size_t n = n_spares(**core);
      const bool suffices = n >= n_wanted, best_suffices = best_spares >= n_wanted;
      if (best == idle_.end() || (suffices ? !best_suffices || n < best_spares : !best_suffices && n > best_spares)) {
        best = core;
        best_spares = n;
      }
    }
    if (best != idle_.end()) {
      std::unique_ptr<Core> core = std::move(*best);
      idle_.erase(best);
      live_.push_back(core.get());
      return core;
    }
  }
  auto core = std::make_unique<Core>();
  core->capacity = capacity;
  core->unit = unit;
  core->window = std::make_shared<FileWindow>(*this, capacity, unit);
  void* const address = ::mmap(nullptr, capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) fail_errno("reserve addresses", "page range");
  core->data = static_cast<std::byte*>(address);
  const std::lock_guard lock(mutex_);
  count_mappings(*core);
  live_.push_back(core.get());
  return core;
}

/// Takes the core of a range that ended: its spares wait for the next one, or go.
void PagePool::end(std::unique_ptr<Core> core) {
  settle(*core);
  {
    const std::lock_guard lock(mutex_);
    std::erase(live_, core.get());
    const bool spares = std::any_of(core->slots.begin(), core->slots.end(), [](const auto& s) { return bool(s.run); });
    if (deferred() && spares) {
      idle_.push_back(std::move(core));
      return;
    }
  }
  ::munmap(core->data, core->capacity);
  n_mappings_ -= core->n_mappings;
}

/// Mappings that the system needs for a core: neighbours in the file with the same rights have one together, and so
/// have neighbours without pages.
void PagePool::count_mappings(Core& core) {
  const MappedRange::Slot nothing;
  size_t n = 1;
  for (size_t i = 1; i < std::min(core.slots.size() + 1, core.capacity / core.unit); ++i) {
    const MappedRange::Slot& a = core.slots[i - 1];
    const MappedRange::Slot& b = i < core.slots.size() ? core.slots[i] : nothing;
    const bool joined = a.run && b.run
                            ? a.writable == b.writable && a.run.pages_->offset() + core.unit == b.run.pages_->offset()
                            : !a.run && !b.run;
    n += joined ? 0 : 1;
  }
  n_mappings_ += n;
  n_mappings_ -= std::exchange(core.n_mappings, n);
}

void PagePool::count_time(uint64_t calls, double seconds) {
  map_calls_ += calls;
  map_ns_ += static_cast<uint64_t>(1e9 * seconds);
}

void PagePool::count_ahead(double seconds) {
  ++map_calls_;
  ahead_ns_ += static_cast<uint64_t>(1e9 * seconds);
}

/// Calls off what is to be mapped ahead of need for a core, so that its range alone decides what lies behind it.
void PagePool::settle(const Core& core) {
  std::vector<MapAhead::Unit> given_up;  // when the lock is gone
  std::unique_lock lock(mutex_);
  given_up = ahead_->settle(lock, &core);
}

void PagePool::wait_for_ahead() {
  std::unique_lock lock(mutex_);
  ahead_->wait(lock);
}

// Spares --------------------------------------------------------------------------------------------------------------

PagePool::Deferral::Deferral(PagePool& pool) : pool_(pool) {
  ++pool_.n_deferrals_;
}

PagePool::Deferral::~Deferral() {
  if (--pool_.n_deferrals_ == 0) pool_.reclaim(Tier::kRam, ~uint64_t{0});
}

uint64_t PagePool::reclaimable(Tier tier) const {
  if (tier != Tier::kRam) return 0;
  const uint64_t spare = stats().spare;
  const std::lock_guard lock(mutex_);
  return spare + ahead_->bytes();
}

/// Gives the spares of a range back.
void PagePool::drop_spares(Core& core) {
  std::vector<PageRun> runs;  // when the lock is gone
  const std::lock_guard lock(mutex_);
  take_spares(core, ~uint64_t{0}, runs);
}

/// Moves spares, the last ones first, to `runs` until they have `bytes` or there are no more; returns their bytes.
/// REQUIRES the mutex.
uint64_t PagePool::take_spares(Core& core, uint64_t bytes, std::vector<PageRun>& runs) {
  uint64_t taken = 0;
  const size_t last = core.slots.size();
  size_t first = last;
  while (first > core.n_used && taken < bytes) {
    --first;
    if (!core.slots[first].run) continue;
    taken += core.unit;
    runs.push_back(std::move(core.slots[first].run));
    core.slots[first] = {};
  }
  if (first == last) return 0;
  cover(core.data + first * core.unit, (last - first) * core.unit);
  count_mappings(core);
  return taken;
}

uint64_t PagePool::reclaim(Tier tier, uint64_t bytes) {
  if (tier != Tier::kRam) return 0;
  std::vector<PageRun> runs;  // given back when the lock is gone
  std::vector<MapAhead::Unit> given_up;
  std::vector<std::unique_ptr<Core>> cores;
  uint64_t freed = 0;
  {
    std::unique_lock lock(mutex_);
    given_up = ahead_->settle(lock, nullptr);  // nothing is mapped ahead where memory is short
    for (const MapAhead::Unit& unit : given_up) freed += unit.pages->bytes;
    const auto take = [&](Core& core) { freed += take_spares(core, bytes - freed, runs); };
    for (auto core = idle_.rbegin(); core != idle_.rend() && freed < bytes; ++core) take(**core);
    for (auto core = live_.rbegin(); core != live_.rend() && freed < bytes; ++core) take(**core);
    std::erase_if(idle_, [&](std::unique_ptr<Core>& core) {
      if (std::any_of(core->slots.begin(), core->slots.end(), [](const auto& s) { return bool(s.run); })) return false;
      cores.push_back(std::move(core));
      return true;
    });
  }
  for (const auto& core : cores) {
    ::munmap(core->data, core->capacity);
    n_mappings_ -= core->n_mappings;
  }
  return freed;
}

}  // namespace mneme
