#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "budget/mapped_range.h"
#include "context/state_io.h"

namespace mneme {

/// How the bytes of a layer's state grow with the tokens of its sequence. Known before admission, and exact.
class StateSpec {
 public:
  /// No state.
  StateSpec() = default;
  /// `bytes(tokens)` must not fall as tokens grow.
  explicit StateSpec(std::function<uint64_t(uint64_t tokens)> bytes) : bytes_(std::move(bytes)) {}

  /// Bytes that the state holds after `tokens` tokens.
  uint64_t bytes(uint64_t tokens) const { return bytes_ ? bytes_(tokens) : 0; }

 private:
  std::function<uint64_t(uint64_t)> bytes_;
};

/// What the layers of one sequence share while it is copied: each shared object is copied once.
class CopyScope {
 public:
  /// The copy of `original`, made by `make()` when it is asked for first.
  template <typename T, typename Make>
  std::shared_ptr<T> shared(const T* original, Make make) {
    std::shared_ptr<void>& copy = copies_[original];
    if (!copy) copy = make();
    return std::static_pointer_cast<T>(copy);
  }

 private:
  std::map<const void*, std::shared_ptr<void>> copies_;
};

/// Tokens of one page of saved state.
constexpr int64_t kPageTokens = 256;

/// Pages [begin, end); page i holds what a state keeps of the tokens [i * kPageTokens, (i + 1) * kPageTokens).
struct PageRange {
  int64_t begin = 0, end = 0;
};

/// What a state with a slow tier brought from there since it was made.
struct FetchCounts {
  uint64_t wanted = 0;    ///< Pieces that attention asked for,
  uint64_t resident = 0;  ///< and those of them that were in the fast tier already.
  uint64_t bytes = 0;     ///< Read from the slow tier,
  uint64_t passed = 0;    ///< and those of them that a filter beside it let through to the computing, when there is one.
  uint64_t link = 0;      ///< To and from an executor in another process, both directions together.

  FetchCounts& operator+=(const FetchCounts& other) {
    wanted += other.wanted;
    resident += other.resident;
    bytes += other.bytes;
    passed += other.passed;
    link += other.link;
    return *this;
  }
  FetchCounts& operator-=(const FetchCounts& other) {
    wanted -= other.wanted;
    resident -= other.resident;
    bytes -= other.bytes;
    passed -= other.passed;
    link -= other.link;
    return *this;
  }
  double hit_rate() const { return wanted == 0 ? 0 : static_cast<double>(resident) / static_cast<double>(wanted); }
};

/// The memory of one sealed page, as a handle that other states may hold and map.
using SharedPage = std::vector<PageRun>;

/// State of one layer of one sequence: keys and values, or a recurrent state. Owned by the sequence, counted in the
/// ledger, used by one thread of control at a time.
///
/// A state is saved as pages and a rest. A page is sealed: nothing but truncate() changes or removes it, except that a
/// state with a bounded memory drops its oldest. It depends on the tokens up to its end alone, so it may be loaded into
/// any sequence that begins with the same tokens. The rest is everything else and is written anew at each save. A state
/// that seals nothing (a recurrence, statistics that change old tokens) is all rest.
class LayerState {
 public:
  virtual ~LayerState() = default;
  /// Bytes held now.
  virtual uint64_t bytes() const = 0;
  /// Tokens seen.
  virtual int64_t n_tokens() const = 0;
  /// Why the state is of no use any more, in one line, such as a device that failed under it; empty: all is well. Nothing
  /// that comes out of it then counts.
  virtual std::string_view trouble() const { return {}; }
  virtual FetchCounts fetches() const { return {}; }
  /// Forgets the tokens from `n_tokens` on. Returns false, and changes nothing, when the state cannot do that.
  virtual bool truncate(int64_t n_tokens) = 0;
  /// An independent copy of everything (named, since it is expensive). Throws Error(kOutOfBudget).
  std::unique_ptr<LayerState> deep_copy() const {
    CopyScope alone;
    return copy(alone);
  }
  /// The same for all layers of a sequence, which use one scope.
  virtual std::unique_ptr<LayerState> copy(CopyScope& scope) const = 0;

  /// Sealed pages that are held now.
  virtual PageRange sealed_pages() const { return {}; }
  /// Writes a page of sealed_pages().
  virtual void save_page(int64_t /*page*/, StateWriter& /*out*/) const {}
  /// Writes the rest as it was after n_tokens tokens: n_tokens() or any earlier multiple of kPageTokens. Writes nothing
  /// and returns false when the state cannot tell that any more.
  virtual bool save_rest(int64_t n_tokens, StateWriter& out) const = 0;

  /// Whether sealed pages can be shared instead of copied, see share_page().
  virtual bool shares_pages() const { return false; }
  /// The memory of a page of sealed_pages(). It never changes: a state that is to write there takes a copy first. Empty when
  /// that page can only be copied.
  virtual SharedPage share_page(int64_t /*page*/) const { return {}; }

  /// First page that a state of n_tokens tokens makes use of; earlier ones need not be loaded.
  virtual int64_t first_page(int64_t /*n_tokens*/) const { return 0; }
  /// Loading goes into an empty state of the same kind: pages in order and without gaps, then one rest. Counts
  /// n_tokens() up. Throws Error: kCorruptData when the bytes or their order cannot be right, kOutOfBudget,
  /// kContextOverflow; the state is of no use then.
  virtual void load_page(int64_t page, StateReader& in);
  /// As load_page(), of memory that a state of the same kind shared: it is the same memory then.
  virtual void load_shared_page(int64_t page, const SharedPage& shared);
  /// Throws also when the pages loaded before do not suffice.
  virtual void load_rest(StateReader& in) = 0;
};

inline void LayerState::load_page(int64_t page, StateReader&) {
  fail(ErrorCode::kCorruptData, "[load state] expected no pages, found page {}", page);
}

inline void LayerState::load_shared_page(int64_t page, const SharedPage&) {
  fail(ErrorCode::kCorruptData, "[load state] expected no shared pages, found page {}", page);
}

}  // namespace mneme
