#include "recall/index/id_map.h"

#include <algorithm>
#include <vector>

namespace mneme::ann {

size_t IdMap::home(uint64_t id) const {
  uint64_t mixed = id * 0x9E3779B97F4A7C15u;  // Fibonacci hashing; ids that count up spread over the table
  mixed ^= mixed >> 32;
  return static_cast<size_t>((mixed & 0xFFFFFFFFu) * table_.size() >> 32);
}

std::optional<uint32_t> IdMap::find(uint64_t id) const {
  if (size_ == 0) return std::nullopt;
  for (size_t at = home(id);; at = at + 1 == table_.size() ? 0 : at + 1) {
    const uint32_t entry = table_[at];
    if (entry == kEmpty) return std::nullopt;
    if ((*ids_)[entry - 1] == id) return entry - 1;
  }
}

void IdMap::rehash(size_t capacity) {
  std::vector<uint32_t> old;
  old.reserve(size_);
  for (uint32_t entry : table_) {
    if (entry != kEmpty) old.push_back(entry - 1);
  }
  table_.resize(capacity);
  std::fill(table_.begin(), table_.end(), kEmpty);
  size_ = 0;
  for (uint32_t slot : old) insert(slot);
}

void IdMap::insert(uint32_t slot) {
  if ((size_ + 1) * 4 > table_.size() * 3) rehash(std::max<size_t>(1024, table_.size() / 2 * 3));
  size_t at = home((*ids_)[slot]);
  while (table_[at] != kEmpty) at = at + 1 == table_.size() ? 0 : at + 1;
  table_[at] = slot + 1;
  ++size_;
}

void IdMap::erase(uint32_t slot) {
  const size_t capacity = table_.size();
  size_t hole = home((*ids_)[slot]);
  while (table_[hole] != slot + 1) hole = hole + 1 == capacity ? 0 : hole + 1;
  // Entries behind the hole move up unless that would put them before their home.
  for (size_t at = hole + 1 == capacity ? 0 : hole + 1; table_[at] != kEmpty; at = at + 1 == capacity ? 0 : at + 1) {
    const size_t wanted = home((*ids_)[table_[at] - 1]);
    const size_t from_home = (at + capacity - wanted) % capacity, from_hole = (at + capacity - hole) % capacity;
    if (from_home >= from_hole) {
      table_[hole] = table_[at];
      hole = at;
    }
  }
  table_[hole] = kEmpty;
  --size_;
}

}  // namespace mneme::ann
