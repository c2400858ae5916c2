#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "recall/index/growing_array.h"
#include "recall/index/posting_list.h"

namespace mneme::ann {

/// Vectors on their way to posting lists: encoded elements in RAM, and for each head those that its list is to get.
/// Counted memory; numbers count up from 0 until clear().
class PendingVectors {
 public:
  PendingVectors(Ledger& ledger, size_t element_bytes);

  /// Number of the vector of a slot, added when it is not there. Throws Error(kOutOfBudget).
  uint32_t add(uint32_t slot, const std::byte* element);
  /// Puts a vector on the way to a head's list; twice is once.
  void assign(uint32_t head, uint32_t number);
  /// Vectors on the way to a head's list, by number.
  std::span<const uint32_t> of(uint32_t head) const;
  void drop_list(uint32_t head) { lists_.erase(head); }
  /// A head whose list is to get something.
  bool any_list(uint32_t* head) const;

  size_t size() const { return slots_.size(); }
  uint32_t slot(uint32_t number) const { return slots_[number]; }
  const std::byte* element(uint32_t number) const { return elements_.data() + number * element_bytes_; }
  bool has(uint32_t slot) const { return numbers_.contains(slot); }
  uint64_t bytes() const { return elements_.bytes() + slots_.bytes() + maps_.bytes(); }
  void clear();

 private:
  void count_maps();

  size_t element_bytes_;
  GrowingArray<std::byte> elements_;
  GrowingArray<uint32_t> slots_;
  std::unordered_map<uint32_t, uint32_t> numbers_;             ///< By slot.
  std::unordered_map<uint32_t, std::vector<uint32_t>> lists_;  ///< By head.
  size_t n_assigned_ = 0;
  Reservation maps_;
};

}  // namespace mneme::ann
