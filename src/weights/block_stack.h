#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "budget/buffer.h"
#include "weights/stack_file.h"

namespace mneme {

/// The BitStack blocks of a running model: as long a prefix of their order as the memory allows (arXiv 2410.23918).
///
/// The blocks lie in one run of memory in the order of the file. Growing reads the next ones from the file, each once
/// and checked against its checksum; shrinking gives pages back to the system. Both happen between forward passes only.
/// Under pressure the ledger takes blocks from the end (a Reclaimer, dearer than everything that can be computed
/// again); what it asks for while a pass runs is given right behind it. regrow() goes back
/// to the target as soon as all of it fits again.
///
/// Keys and values that were computed with other blocks stay in use: they are those of slightly other weights.
///
/// Thread-safe but for find() and load(). The ledger must outlive it.
class BlockStack : public Reclaimer {
 public:
  /// The stack of a file, or null when it has none; reads the directories only. `file` may go afterwards.
  static std::unique_ptr<BlockStack> of(const ModelFile& file);
  ~BlockStack() override;

  /// Blocks of the file, and how many of them hold one of each matrix: with less there is no model.
  size_t n_blocks() const { return blocks_.size(); }
  size_t least_blocks() const { return least_; }
  /// Memory that the first n blocks take, in whole pages.
  uint64_t bytes(size_t n) const;
  /// Most blocks that fit `bytes`; may be below least_blocks().
  size_t fitting(uint64_t bytes) const;
  /// Bits a weight of the stacked matrices.
  double bits_per_weight(size_t n) const;

  /// The blocks of matrix `name` that are loaded, for products; lives as long as this. Null for other matrices.
  const bitstack::BlockList* find(std::string_view name) const;

  /// Loads the first n blocks and makes n the target; to be called once, before the others below. Throws
  /// Error(kOutOfBudget), Error(kCorruptData) when a block of the least ones is damaged; behind a damaged block of the
  /// others the stack ends (size() says so).
  void load(Ledger& ledger, size_t n);
  /// Changes the target. Takes effect at once when no pass runs, else before the next.
  void set_target(size_t n);
  /// Goes on to the target if all of it fits what is free. To be called when what running requests will need is reserved:
  /// passes do not grow the stack, because the room that they find free is meant for their keys and values.
  void regrow();
  /// For measuring: the first levels[m] blocks of matrix m, in the order of the file, with everything loaded. The next
  /// change of size undoes it.
  void set_levels(std::span<const uint32_t> levels);

  struct Status {
    size_t loaded = 0, target = 0;
    size_t usable = 0;  ///< Blocks up to the first damaged one.
    uint64_t bytes = 0;
    uint64_t n_grown = 0, n_shrunk = 0;  ///< Changes of size after load().
    uint64_t bytes_read = 0;             ///< From the file so far.
  };
  Status status() const;

  /// A forward pass: while one lives, no block comes or goes. Passes may overlap.
  class Pass {
   public:
    /// `stack` may be null.
    explicit Pass(BlockStack* stack);
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass();

   private:
    BlockStack* stack_;
  };

  std::string name() const override { return "blocks of weights"; }
  uint64_t reclaimable(Tier tier) const override;
  double cost_per_byte() const override;
  uint64_t reclaim(Tier tier, uint64_t bytes) override;

 private:
  class Change;
  struct File;

  BlockStack() = default;
  enum class Growth : uint8_t { kNone, kIntoFree, kReclaiming };
  void settle(Growth growth);
  void grow_to(size_t n);
  void shrink_to(size_t n);
  void count_levels();

  std::vector<bitstack::PlacedBlock> blocks_;
  std::vector<std::string> names_;         ///< Of the matrices.
  std::deque<bitstack::BlockList> lists_;  ///< One a matrix.
  size_t least_ = 0;
  uint64_t n_weights_ = 0;
  std::unique_ptr<File> file_;
  Ledger* ledger_ = nullptr;
  GrowingBuffer memory_;

  mutable std::mutex mutex_;  ///< Guards what follows; never held while the ledger is asked.
  std::condition_variable settled_;
  int n_passes_ = 0;
  bool changing_ = false;
  Status status_;
};

}  // namespace mneme
