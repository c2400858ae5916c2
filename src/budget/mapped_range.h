#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "budget/ledger.h"

namespace mneme {

class MapAhead;
class PagePool;
struct FileWindow;

/// A run of pages that does not change as long as this handle lives. Copies are handles on the same pages.
class PageRun {
 public:
  PageRun() = default;
  explicit operator bool() const { return pages_ != nullptr; }
  size_t bytes() const;
  /// Whether somebody else holds or maps the same pages.
  bool shared() const { return pages_.use_count() > 1; }

 private:
  friend class PagePool;
  friend class MappedRange;
  friend class MapAhead;
  struct Pages;
  explicit PageRun(std::shared_ptr<Pages> pages) : pages_(std::move(pages)) {}
  std::shared_ptr<Pages> pages_;
};

/// A contiguous range of addresses that fills with pages from its start on, unit by unit: kernels keep a plain pointer
/// while a context grows, and several ranges may have the same pages in them. After vAttention (arXiv 2405.04437); the
/// pages are those of the ledger's PagePool.
///
/// Used by one thread at a time. Not for fork(): a child does not have the pages.
class MappedRange {
 public:
  MappedRange();
  /// Room for `capacity` bytes in units of `unit` bytes, a multiple of 4096. Uses no memory; addresses are reserved
  /// with the first unit. Pages in use are counted under `tag`; `what` names the range in messages.
  MappedRange(Ledger& ledger, Tag tag, size_t unit, size_t capacity, std::string what);
  MappedRange(MappedRange&&) noexcept;
  MappedRange& operator=(MappedRange&&) noexcept;
  ~MappedRange();

  /// Makes at least `bytes` usable: new units are private and zero. Throws Error(kOutOfBudget); then nothing changes.
  void grow_to(size_t bytes);
  /// Has the units up to `bytes` mapped in the background, as far as the ledger has room without asking anybody to give
  /// back and the range's capacity reaches: grow_to() then finds them mapped. They count as kCache until it does. Does
  /// nothing before the first unit is there, nor when the background has trouble. Cheap to repeat.
  void map_ahead(size_t bytes);
  /// Gives the units beyond `bytes` back, rounded up to units.
  void shrink_to(size_t bytes);
  /// A handle on a unit, which cannot be written here from now on, until it is made private again. Empty when the
  /// system has no mapping left for that: the caller copies.
  PageRun share(size_t unit) const;
  /// Appends a unit that another range of the same unit shared; it cannot be written here. Copies it when there is no
  /// mapping left. Throws Error(kOutOfBudget).
  void append(const PageRun& run);
  /// Makes a unit writable, with its content: by a copy when others have it too. Throws Error(kOutOfBudget).
  void make_private(size_t unit);

  /// Where the first byte is, now and later; null before the first unit is there.
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  /// Bytes in use, shared or not.
  size_t committed() const;
  size_t capacity() const { return capacity_; }
  size_t unit() const { return unit_; }

 private:
  friend class PagePool;
  friend class MapAhead;
  struct Slot {
    PageRun run;
    bool writable = false;
    bool clean = false;  ///< A spare that nobody has used: its bytes are zero.
  };
  /// What outlives the range under deferred reclamation.
  struct Core {
    std::byte* data = nullptr;
    size_t capacity = 0, unit = 0;
    std::shared_ptr<FileWindow> window;
    // Changed under the pool's mutex; the range itself may read its own units without.
    size_t n_used = 0;        ///< Units of the range,
    std::vector<Slot> slots;  ///< spares behind them, and units that are not mapped.
    size_t n_mappings = 0;
  };

  void release();
  void settle();
  void begin(size_t n_wanted);
  void map(size_t first, size_t n, bool writable);
  void set_run(size_t unit, PageRun run);
  void fill(size_t first, size_t end);
  void copy_unit(size_t unit);

  PagePool* pool_ = nullptr;
  Ledger* ledger_ = nullptr;
  Tag tag_{};
  size_t unit_ = 0, capacity_ = 0;
  std::string what_;
  std::unique_ptr<Core> core_;
  std::byte* data_ = nullptr;
};

}  // namespace mneme
