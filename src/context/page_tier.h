#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "budget/buffer.h"

namespace mneme {

/// A place behind RAM where PrefixCache keeps its blocks: a disk, a server. Blocks are found by token hash; who reads
/// one must verify it. A tier never throws: what it cannot do it says in trouble(), and the cache does without.
/// Thread-safe.
class PageTier {
 public:
  virtual ~PageTier() = default;
  /// Which of these blocks it has.
  virtual std::vector<bool> has(std::span<const uint64_t> hashes) = 0;
  /// Takes a block, and writes it behind the caller's back.
  virtual void put(uint64_t hash, std::shared_ptr<const GrowingBuffer> block) = 0;
  /// Brings blocks back, counted under Tag::kCache in RAM. Null for one that is gone or for which the budget is too
  /// small, and for all behind it.
  virtual std::vector<std::shared_ptr<const GrowingBuffer>> get(std::span<const uint64_t> hashes) = 0;
  /// Removes one that turned out to be bad.
  virtual void remove(uint64_t hash) = 0;
  /// Waits until everything that was put is written or given up.
  virtual void flush() = 0;
  /// What to expect of bringing back a byte, in nanoseconds.
  virtual double ns_per_byte() const = 0;
  /// What went wrong last; empty when nothing did.
  virtual std::string trouble() const = 0;
};

}  // namespace mneme
