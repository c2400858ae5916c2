#pragma once

#include <cstdint>
#include <optional>

#include "recall/index/growing_array.h"

namespace mneme::ann {

/// Which slot of a table holds an id: open addressing with linear probing over slot numbers, 4 bytes an entry; the ids
/// themselves stay in the caller's table. Counted memory.
class IdMap {
 public:
  /// `ids[slot]` is the id of a slot; the array outlives the map.
  IdMap(Ledger& ledger, const GrowingArray<uint64_t>& ids) : ids_(&ids), table_(ledger, Tag::kIndex, "index of ids") {}

  std::optional<uint32_t> find(uint64_t id) const;
  /// Adds ids[slot], which is not in the map.
  void insert(uint32_t slot);
  /// Removes ids[slot], which is in the map.
  void erase(uint32_t slot);
  size_t size() const { return size_; }
  uint64_t bytes() const { return table_.bytes(); }

 private:
  static constexpr uint32_t kEmpty = 0;  // entries are slot + 1, so that fresh memory is empty
  size_t home(uint64_t id) const;
  void rehash(size_t capacity);

  const GrowingArray<uint64_t>* ids_;
  GrowingArray<uint32_t> table_;
  size_t size_ = 0;
};

}  // namespace mneme::ann
