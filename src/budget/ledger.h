#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// What a reservation is for.
enum class Tag : uint8_t {
  kWeights,
  kKv,     ///< Keys and values of the context.
  kState,  ///< Recurrent state of sequences.
  kActivation,
  kGradient,
  kOptimizer,
  kIndex,
  kCache,    ///< Anything that may be dropped and made again.
  kScratch,  ///< Working memory of one operation.
  kRuntime,  ///< The process itself: program, libraries, vocabulary.
};
constexpr size_t kTags = 10;

/// Where the bytes live.
enum class Tier : uint8_t { kRam, kDisk, kServer, kDevice };
constexpr size_t kTiers = 4;

std::string_view tag_name(Tag tag);
std::string_view tier_name(Tier tier);

class Ledger;
class PagePool;

/// A part of the budget, given back when it is destroyed. Move-only; must not outlive its ledger.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation() { release(); }

  /// Grows or shrinks to `bytes`. Growing throws Error(kOutOfBudget) when it does not fit, and then nothing changes.
  void resize(uint64_t bytes);
  void release();
  /// Counts the bytes under another tag from now on. The total stays as it is, so this cannot fail and is no event.
  void move_to(Tag tag);
  uint64_t bytes() const { return bytes_; }
  explicit operator bool() const { return ledger_ != nullptr; }

 private:
  friend class Ledger;
  Reservation(Ledger* ledger, Tag tag, Tier tier, uint64_t bytes, std::string what);

  Ledger* ledger_ = nullptr;
  Tag tag_{};
  Tier tier_{};
  uint64_t bytes_ = 0;
  std::string what_;
};

/// A holder that can give bytes back under pressure.
class Reclaimer {
 public:
  virtual ~Reclaimer() = default;
  virtual std::string name() const = 0;
  /// Bytes of `tier` that reclaim() could free now.
  virtual uint64_t reclaimable(Tier tier) const = 0;
  /// Cost of giving back one byte, for choosing the cheapest holder first: time to make it again in nanoseconds.
  virtual double cost_per_byte() const = 0;
  /// Frees at least `bytes` if it can, by shrinking its own reservations; returns the bytes freed.
  virtual uint64_t reclaim(Tier tier, uint64_t bytes) = 0;
};

/// One thing that happened to the budget.
struct BudgetEvent {
  enum class Kind { kReserve, kRelease, kRefuse, kReclaim, kLimit } kind;
  Tier tier;
  Tag tag;              ///< Unused for kReclaim and kLimit.
  uint64_t bytes;       ///< Amount of the change; the new limit for kLimit.
  uint64_t used_after;  ///< Total of the tier afterwards.
  std::string what;     ///< Who, or why.
};

/// The one account of memory: every large allocation is a Reservation here, and the sum per tier never passes the
/// limit.
///
/// Thread-safe. Reclaimers and listeners are called on the thread that asked, and may use the ledger themselves. A
/// reclaimer must not wait for a lock under which it reserves memory: another thread may hold it while it asks for
/// reclaiming.
class Ledger {
 public:
  static constexpr uint64_t kUnlimited = ~uint64_t{0};

  explicit Ledger(uint64_t ram_limit = kUnlimited);
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Takes `bytes`, asking reclaimers when there is no room. Throws Error(kOutOfBudget) with the numbers.
  Reservation reserve(Tag tag, uint64_t bytes, std::string what, Tier tier = Tier::kRam);
  /// As reserve(), but answers a refusal with nothing.
  std::optional<Reservation> try_reserve(Tag tag, uint64_t bytes, std::string what, Tier tier = Tier::kRam);

  /// Changes a limit while running. When more is in use, reclaimers are asked for the difference; returns the bytes by
  /// which use still exceeds the limit (0 when it holds). New reservations are refused until it holds.
  uint64_t set_limit(Tier tier, uint64_t bytes);

  uint64_t limit(Tier tier) const;
  uint64_t used(Tier tier) const;
  uint64_t used(Tier tier, Tag tag) const;
  uint64_t peak(Tier tier) const;
  uint64_t peak(Tier tier, Tag tag) const;
  /// Bytes that may still be reserved without reclaiming.
  uint64_t available(Tier tier) const;

  void add_reclaimer(Reclaimer* reclaimer);
  /// Waits until no reclaiming is under way on another thread, so that `reclaimer` may be destroyed afterwards.
  void remove_reclaimer(Reclaimer* reclaimer);
  /// Calls `listener` for each event; returns a handle for remove_listener().
  int add_listener(std::function<void(const BudgetEvent&)> listener);
  void remove_listener(int handle);

  /// The memory file whose pages are counted here, made when it is first asked for. Throws Error(kIo).
  PagePool& page_pool();

 private:
  friend class Reservation;
  struct Account {
    uint64_t used = 0, peak = 0;
    void add(uint64_t bytes);
  };

  bool take(Tag tag, Tier tier, uint64_t bytes, const std::string& what);
  void give_back(Tag tag, Tier tier, uint64_t bytes, const std::string& what);
  bool take_if_room(Tag tag, Tier tier, uint64_t bytes, uint64_t* missing);
  /// Asks reclaimers, cheapest first, until `bytes` are free or none has more.
  void reclaim(Tier tier, uint64_t bytes);
  [[noreturn]] void refuse(Tag tag, Tier tier, uint64_t bytes, const std::string& what) const;
  void publish(const BudgetEvent& event);

  std::recursive_mutex reclaiming_;  ///< Held while reclaimers are asked; taken before mutex_.
  mutable std::mutex mutex_;
  std::array<uint64_t, kTiers> limit_;
  std::array<Account, kTiers> total_{};
  std::array<std::array<Account, kTags>, kTiers> by_tag_{};
  std::vector<Reclaimer*> reclaimers_;
  std::vector<std::pair<int, std::function<void(const BudgetEvent&)>>> listeners_;
  int next_listener_ = 0;
  std::once_flag pool_made_;
  std::shared_ptr<PagePool> pool_;  ///< Last: it uses the others until it is gone.
};

}  // namespace mneme
