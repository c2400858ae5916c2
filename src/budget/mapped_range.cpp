#include "budget/mapped_range.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "budget/map_ahead.h"
#include "budget/page_pool.h"

namespace mneme {
namespace {

constexpr size_t kPageBytes = 4096;

/// Adds what passes until its end to the pool's counts.
class MapClock {
 public:
  explicit MapClock(std::function<void(double)> add) : add_(std::move(add)), start_(std::chrono::steady_clock::now()) {}
  ~MapClock() { add_(std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count()); }

 private:
  std::function<void(double)> add_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

MappedRange::MappedRange() = default;

MappedRange::MappedRange(Ledger& ledger, Tag tag, size_t unit, size_t capacity, std::string what)
    : pool_(&ledger.page_pool()), ledger_(&ledger), tag_(tag), unit_(unit), what_(std::move(what)) {
  if (unit == 0 || unit % kPageBytes != 0) {
    fail(ErrorCode::kInvalidArgument, "[reserve addresses] expected units of whole pages of {} bytes, found {}",
         kPageBytes, unit);
  }
  capacity_ = round_up(std::max<size_t>(1, capacity), unit);
}

MappedRange::MappedRange(MappedRange&& other) noexcept {
  *this = std::move(other);
}

MappedRange& MappedRange::operator=(MappedRange&& other) noexcept {
  if (this == &other) return *this;
  release();
  pool_ = other.pool_;
  ledger_ = other.ledger_;
  tag_ = other.tag_;
  unit_ = other.unit_;
  capacity_ = std::exchange(other.capacity_, 0);
  what_ = std::move(other.what_);
  core_ = std::move(other.core_);
  data_ = std::exchange(other.data_, nullptr);
  return *this;
}

MappedRange::~MappedRange() {
  release();
}

size_t MappedRange::committed() const {
  return core_ ? core_->n_used * unit_ : 0;
}

void MappedRange::release() {
  if (!core_) return;
  shrink_to(0);
  pool_->end(std::move(core_));
  data_ = nullptr;
}

void MappedRange::begin(size_t n_wanted) {
  if (core_) return;
  core_ = pool_->begin(capacity_, unit_, n_wanted);
  data_ = core_->data;
}

/// Maps units [first, first + n), whose pages are neighbours in the file, and fills the page tables.
void MappedRange::map(size_t first, size_t n, bool writable) {
  pool_->map(data_ + first * unit_, n * unit_, core_->slots[first].run.pages_->offset(), writable);
  const std::lock_guard lock(pool_->mutex_);
  for (size_t i = first; i < first + n; ++i) core_->slots[i].writable = writable;
}

void MappedRange::set_run(size_t unit, PageRun run) {
  {
    const std::lock_guard lock(pool_->mutex_);
    std::swap(core_->slots[unit].run, run);
    if (!core_->slots[unit].run) core_->slots[unit] = {};
  }  // what was there ends without the lock
}

/// New pages for the units of [first, end) that have none. Throws Error; then these have none again.
void MappedRange::fill(size_t first, size_t end) {
  std::vector<std::pair<size_t, std::shared_ptr<PageRun::Pages>>> added;
  for (size_t i = first; i < end; ++i) {
    if (core_->slots[i].run) continue;
    added.emplace_back(i, pool_->place(core_->window, i, unit_, ledger_->reserve(tag_, unit_, what_)));
  }
  if (added.empty()) return;
  const MapClock clock([&](double seconds) { pool_->count_time(1, seconds); });
  try {
    for (size_t i = 0, n; i < added.size(); i += n) {
      std::vector<std::shared_ptr<PageRun::Pages>> run;
      for (n = 0; i + n < added.size(); ++n) {  // neighbours in the range and in the file
        const auto& [unit, pages] = added[i + n];
        if (n > 0 && (unit != added[i].first + n || pages->offset() != run.front()->offset() + n * unit_)) break;
        run.push_back(pages);
      }
      pool_->allocate(run);
      for (size_t k = 0; k < n; ++k) set_run(added[i].first + k, PageRun(run[k]));
      map(added[i].first, n, true);
    }
  } catch (...) {
    for (const auto& [unit, pages] : added) {
      PagePool::cover(data_ + unit * unit_, unit_);
      if (pages->allocated) pool_->unuse(*pages);
      set_run(unit, {});
    }
    throw;
  }
}

void MappedRange::grow_to(size_t bytes) {
  if (bytes <= committed()) return;
  if (bytes > capacity_) {
    fail(ErrorCode::kContextOverflow, "[grow] expected at most {} bytes, asked for {}", capacity_, bytes);
  }
  const size_t end = div_up(bytes, unit_);
  begin(end);
  settle();
  const size_t before = core_->n_used;
  std::vector<bool> spare(end - before);
  {  // from here on nobody takes the spares among them away
    const std::lock_guard lock(pool_->mutex_);
    if (core_->slots.size() < end) core_->slots.resize(end);
    core_->n_used = end;
    for (size_t i = before; i < end; ++i) spare[i - before] = bool(core_->slots[i].run);
  }
  try {
    fill(before, end);
  } catch (...) {
    const std::lock_guard lock(pool_->mutex_);
    core_->n_used = before;
    throw;
  }
  for (size_t i = before; i < end; ++i) {
    Slot& slot = core_->slots[i];
    if (!spare[i - before]) continue;
    pool_->use(*slot.run.pages_, tag_);
    if (!std::exchange(slot.clean, false)) std::memset(data_ + i * unit_, 0, unit_);
  }
  const std::lock_guard lock(pool_->mutex_);
  pool_->count_mappings(*core_);
}

/// Calls off what is to be mapped behind the range; waiting for what is under way counts as mapping.
void MappedRange::settle() {
  const MapClock clock([&](double seconds) { pool_->count_time(0, seconds); });
  pool_->settle(*core_);
}

void MappedRange::map_ahead(size_t bytes) {
  if (!core_ || !pool_->ahead_on_ || pool_->near_mapping_limit()) return;
  const size_t end = div_up(std::min(bytes, capacity_), unit_);
  try {
    for (size_t i = core_->n_used; i < end; ++i) {
      {
        const std::lock_guard lock(pool_->mutex_);
        if (core_->slots.size() <= i) core_->slots.resize(i + 1);
        if (core_->slots[i].run || pool_->ahead_->asked(*core_, i)) continue;
      }
      if (ledger_->available(Tier::kRam) < unit_) return;
      std::optional<Reservation> counted = ledger_->try_reserve(Tag::kCache, unit_, what_ + ", ahead of need");
      if (!counted) return;
      MapAhead::Unit unit{core_.get(), i, pool_->place(core_->window, i, unit_, std::move(*counted))};
      const std::lock_guard lock(pool_->mutex_);
      pool_->ahead_->ask(unit);
    }
  } catch (const std::exception&) {  // it was only to be faster: grow_to() says what is wrong when the unit is needed
  }
}

void MappedRange::shrink_to(size_t bytes) {
  const size_t n = div_up(bytes, unit_);
  if (!core_ || n >= core_->n_used) return;
  pool_->settle(*core_);
  if (!pool_->deferred()) pool_->drop_spares(*core_);
  std::vector<PageRun> dropped;  // given back when the addresses are covered and the lock is gone
  for (size_t i = n, last; i < core_->n_used; i = last + 1) {
    for (last = i; last < core_->n_used; ++last) {
      const Slot& slot = core_->slots[last];
      pool_->unuse(*slot.run.pages_);
      if (pool_->deferred() && slot.writable && !slot.run.shared()) break;  // a spare from now on
      dropped.push_back(slot.run);
    }
    if (last > i) PagePool::cover(data_ + i * unit_, (last - i) * unit_);
    for (size_t k = i; k < last; ++k) set_run(k, {});
  }
  const std::lock_guard lock(pool_->mutex_);
  core_->n_used = n;
  while (core_->slots.size() > n && !core_->slots.back().run) core_->slots.pop_back();
  pool_->count_mappings(*core_);
}

PageRun MappedRange::share(size_t unit) const {
  Slot& slot = core_->slots[unit];
  if (slot.writable) {
    if (pool_->file_ < 0 || pool_->near_mapping_limit() || ::mprotect(data_ + unit * unit_, unit_, PROT_READ) != 0)
      return {};
    const std::lock_guard lock(pool_->mutex_);
    slot.writable = false;
    pool_->count_mappings(*core_);
  }
  return slot.run;
}

void MappedRange::append(const PageRun& run) {
  if (run.bytes() != unit_) {
    fail(ErrorCode::kInvalidArgument, "[share pages] expected a unit of {} bytes, found {}", unit_, run.bytes());
  }
  const size_t at = core_ ? core_->n_used : 0;
  if ((at + 1) * unit_ > capacity_) {
    fail(ErrorCode::kContextOverflow, "[share pages] expected at most {} bytes, asked for {}", capacity_,
         (at + 1) * unit_);
  }
  if (pool_->near_mapping_limit()) {
    grow_to((at + 1) * unit_);
    for (size_t done = 0; done < unit_;) {
      const ssize_t n = ::pread(pool_->file_, data_ + at * unit_ + done, unit_ - done,
                                static_cast<off_t>(run.pages_->offset() + done));
      if (n <= 0 && errno != EINTR) fail_errno("copy pages", what_);
      if (n > 0) done += static_cast<size_t>(n);
    }
    return;
  }
  begin(at + 1);
  settle();
  PageRun spare;  // one that lies where the shared one goes
  {
    const std::lock_guard lock(pool_->mutex_);
    if (core_->slots.size() <= at) core_->slots.resize(at + 1);
    spare = std::exchange(core_->slots[at].run, run);
    core_->slots[at].clean = false;
    core_->n_used = at + 1;
  }
  pool_->use(*run.pages_, tag_);
  const MapClock clock([&](double seconds) { pool_->count_time(1, seconds); });
  try {
    map(at, 1, false);
  } catch (...) {
    PagePool::cover(data_ + at * unit_, unit_);
    pool_->unuse(*run.pages_);
    set_run(at, {});
    const std::lock_guard lock(pool_->mutex_);
    core_->n_used = at;
    throw;
  }
  const std::lock_guard lock(pool_->mutex_);
  pool_->count_mappings(*core_);
}

void MappedRange::make_private(size_t unit) {
  Slot& slot = core_->slots[unit];
  if (slot.writable) return;
  if (slot.run.shared()) return copy_unit(unit);
  if (::mprotect(data_ + unit * unit_, unit_, PROT_READ | PROT_WRITE) != 0) fail_errno("map pages", what_);
  const std::lock_guard lock(pool_->mutex_);
  slot.writable = true;
  pool_->count_mappings(*core_);
}

/// Puts a copy where a shared unit is.
void MappedRange::copy_unit(size_t unit) {
  const std::shared_ptr<PageRun::Pages> copy =
      pool_->place(core_->window, unit, unit_, ledger_->reserve(tag_, unit_, what_));
  pool_->allocate({&copy, 1});
  const PageRun before = core_->slots[unit].run;
  try {
    for (size_t done = 0; done < unit_;) {
      const ssize_t n =
          ::pwrite(pool_->file_, data_ + unit * unit_ + done, unit_ - done, static_cast<off_t>(copy->offset() + done));
      if (n <= 0 && errno != EINTR) fail_errno("copy pages", what_);
      if (n > 0) done += static_cast<size_t>(n);
    }
    const MapClock clock([&](double seconds) { pool_->count_time(1, seconds); });
    set_run(unit, PageRun(copy));
    map(unit, 1, true);
  } catch (...) {
    set_run(unit, before);
    pool_->unuse(*copy);
    ::mmap(data_ + unit * unit_, unit_, PROT_READ, MAP_SHARED | MAP_FIXED, pool_->file_,
           static_cast<off_t>(before.pages_->offset()));
    throw;
  }
  pool_->unuse(*before.pages_);
  const std::lock_guard lock(pool_->mutex_);
  pool_->count_mappings(*core_);
}

}  // namespace mneme
