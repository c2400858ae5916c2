#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "recall/index/byte_reader.h"
#include "recall/index/growing_array.h"
#include "recall/index/id_map.h"
#include "recall/index/index_file.h"

namespace mneme::ann {

/// Lists name vectors by 32-bit slots; this table says which id a slot holds, whether it is alive, and in how many
/// lists it is. A dead slot is used again only when no list holds it. 13 to 15 bytes a vector.
class SlotTable {
 public:
  explicit SlotTable(Ledger& ledger);

  /// Slot of a living id.
  std::optional<uint32_t> find(uint64_t id) const { return by_id_.find(id); }
  /// A slot for an id that is not alive. Throws Error(kOutOfBudget).
  uint32_t add(uint64_t id);
  void kill(uint32_t slot);

  uint64_t id(uint32_t slot) const { return ids_[slot]; }
  bool alive(uint32_t slot) const { return (state_[slot] & kAlive) != 0; }
  uint32_t copies(uint32_t slot) const { return state_[slot] & kCopies; }
  void add_copy(uint32_t slot) { ++state_[slot]; }
  void drop_copy(uint32_t slot) { --state_[slot]; }
  static constexpr uint32_t kMostCopies = 100;  ///< A slot counts up to 127.

  /// Makes dead slots without copies usable again. Nothing outside may name them any more.
  void recycle();

  size_t size() const { return ids_.size(); }  ///< Slots, dead ones included.
  size_t n_alive() const { return by_id_.size(); }
  size_t n_dead_in_lists() const { return n_dead_; }  ///< As of the last recycle(), and those killed since.
  uint64_t bytes() const { return ids_.bytes() + state_.bytes() + by_id_.bytes() + free_.bytes(); }

  void write(IndexFileWriter& file) const;
  /// What write() wrote, into an empty table.
  void read(ByteReader& reader);

 private:
  static constexpr uint8_t kAlive = 0x80, kCopies = 0x7F;

  GrowingArray<uint64_t> ids_;
  GrowingArray<uint8_t> state_;
  GrowingArray<uint32_t> free_;
  IdMap by_id_;
  size_t n_dead_ = 0;
};

}  // namespace mneme::ann
