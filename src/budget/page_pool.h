#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "budget/ledger.h"
#include "budget/mapped_range.h"

namespace mneme {

/// A part of a pool's file; leased until the range and all pages in it are gone.
struct FileWindow {
  FileWindow(PagePool& owner, size_t size, size_t unit);
  FileWindow(const FileWindow&) = delete;
  FileWindow& operator=(const FileWindow&) = delete;
  ~FileWindow();

  PagePool& pool;
  size_t bytes;
  uint64_t offset;
  std::vector<bool> taken;  ///< Places of `unit` bytes that have pages. Guarded by the pool's mutex.
};

/// Pages of one unit, at one place of a window.
struct PageRun::Pages {
  Pages(std::shared_ptr<FileWindow> in, size_t at, size_t size, Reservation reservation)
      : window(std::move(in)), place(at), bytes(size), counted(std::move(reservation)) {}
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages();
  uint64_t offset() const { return window->offset + place * bytes; }

  std::shared_ptr<FileWindow> window;
  size_t place, bytes;
  Reservation counted;
  size_t n_users = 0;      ///< Ranges that use them; guarded by the pool's mutex.
  bool allocated = false;  ///< Counted in the pool.
};

/// The physical pages behind MappedRange: one memory file (memfd) a ledger, after vAttention (arXiv 2405.04437), on the
/// host.
///
/// Pages come into being when a range needs them, step by step as the ledger grants them, and not all at the start:
/// what keys and values do not take is free for weights and caches. Every run of pages is allocated (fallocate) before
/// it is mapped, so a shortage is an Error and never a signal. Runs are reference counted; the last holder's end gives
/// pages back to the system (a hole in the file), which also means that nobody ever finds another's bytes in fresh
/// pages.
///
/// A place in the file is a 63-bit number and costs nothing. So each range leases a window of the file as long as
/// itself, and its own pages lie there in its own order: neighbours in the range are neighbours in the file, and the
/// system keeps one mapping for all of them, whatever other ranges do meanwhile. Only pages that come from elsewhere
/// need mappings of their own; they are counted, since the system has a limit (vm.max_map_count), and near it ranges
/// copy instead of sharing.
///
/// In the ledger a run counts once, whoever holds it: under its range's tag while a range uses it, under kCache when it
/// is only held (by a cache, or as a spare of a range). Spares are what deferred reclamation keeps mapped, see
/// Deferral, and what was mapped ahead of need (map_ahead.h); the pool is their Reclaimer.
///
/// Thread-safe. Not done: huge pages.
class PagePool : public Reclaimer {
 public:
  /// Everything counted in bytes: allocated = used + spare + held.
  struct Stats {
    uint64_t allocated = 0;    ///< All pages of the file.
    uint64_t used = 0;         ///< Of runs that a range uses.
    uint64_t spare = 0;        ///< Mapped, but used by nobody.
    uint64_t held = 0;         ///< Neither: only PageRuns are left.
    uint64_t n_mappings = 0;   ///< Of the process for these pages.
    uint64_t map_calls = 0;    ///< Calls that mapped pages, so far.
    double map_seconds = 0;    ///< That threads waited so far until the pages they need were usable.
    double ahead_seconds = 0;  ///< That mapping ahead of need took so far, in its own thread.
  };

  explicit PagePool(Ledger& ledger);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;
  ~PagePool() override;

  Stats stats() const;
  /// What the system says that the file takes.
  uint64_t file_bytes() const;
  /// Allocated pages of all pools of this process.
  static uint64_t bytes_of_process();
  /// Ranges share pages only below so many mappings: three quarters of what the system allows.
  uint64_t most_mappings() const { return most_mappings_; }
  void set_most_mappings(uint64_t n) { most_mappings_ = n; }

  /// Whether ranges may have pages mapped ahead of need (MappedRange::map_ahead()); from the start they may.
  void set_ahead(bool on) { ahead_on_ = on; }
  /// Waits until all that ranges asked for so far is mapped or was given up.
  void wait_for_ahead();

  /// Deferred reclamation: while one of these lives, the pages of ranges that shrink or end stay mapped as spares, and
  /// a range that begins takes over an ended one of its kind, so that equal requests one after another map nothing. It
  /// takes the one with the fewest spares that suffice, else the one with the most. Spares are zeroed before they are
  /// used again, and given back when the ledger asks.
  class Deferral {
   public:
    explicit Deferral(PagePool& pool);
    Deferral(const Deferral&) = delete;
    Deferral& operator=(const Deferral&) = delete;
    ~Deferral();

   private:
    PagePool& pool_;
  };

  std::string name() const override { return "spare pages"; }
  uint64_t reclaimable(Tier tier) const override;
  double cost_per_byte() const override { return 0; }
  uint64_t reclaim(Tier tier, uint64_t bytes) override;

 private:
  friend class MapAhead;
  friend class MappedRange;
  friend struct PageRun::Pages;
  friend struct FileWindow;
  using Core = MappedRange::Core;

  std::shared_ptr<PageRun::Pages> place(const std::shared_ptr<FileWindow>& window, size_t place, size_t unit,
                                        Reservation counted);
  void allocate(std::span<const std::shared_ptr<PageRun::Pages>> run, size_t n_users = 1);
  void map(std::byte* start, size_t bytes, uint64_t offset, bool writable);
  static void cover(std::byte* start, size_t bytes);
  void use(PageRun::Pages& pages, Tag tag);
  void unuse(PageRun::Pages& pages);
  std::unique_ptr<Core> begin(size_t capacity, size_t unit, size_t n_wanted);
  void end(std::unique_ptr<Core> core);
  void count_mappings(Core& core);
  void settle(const Core& core);
  void drop_spares(Core& core);
  uint64_t take_spares(Core& core, uint64_t bytes, std::vector<PageRun>& runs);
  void count_time(uint64_t calls, double seconds);
  void count_ahead(double seconds);
  bool near_mapping_limit() const { return n_mappings_ >= most_mappings_; }
  bool deferred() const { return n_deferrals_ > 0; }

  Ledger& ledger_;
  int file_ = -1;
  std::atomic<uint64_t> most_mappings_, n_mappings_{0}, map_calls_{0}, map_ns_{0}, ahead_ns_{0}, allocated_{0};
  std::atomic<bool> ahead_on_{true};
  std::atomic<int> n_deferrals_{0};
  mutable std::mutex mutex_;           ///< Guards what follows, Window::taken, and the spares of cores.
  std::map<uint64_t, uint64_t> free_;  ///< Parts of the file that nobody leases: offset, bytes.
  uint64_t end_ = 0;                   ///< Of the leased part.
  std::vector<Core*> live_;            ///< Of ranges.
  std::vector<std::unique_ptr<Core>> idle_;
  uint64_t used_ = 0;  ///< Bytes of runs with a user.
  std::unique_ptr<MapAhead> ahead_;
};

}  // namespace mneme
