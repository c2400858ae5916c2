#include "recall/index/slot_table.h"

namespace mneme::ann {

SlotTable::SlotTable(Ledger& ledger)
    : ids_(ledger, Tag::kIndex, "ids of vectors"),
      state_(ledger, Tag::kIndex, "states of vectors"),
      free_(ledger, Tag::kIndex, "free slots"),
      by_id_(ledger, ids_) {}

uint32_t SlotTable::add(uint64_t id) {
  uint32_t slot;
  if (free_.size() > 0) {
    slot = free_[free_.size() - 1];
    free_.resize(free_.size() - 1);
  } else {
    if (ids_.size() >= 0xFFFFFFFEu) fail(ErrorCode::kUnsupported, "[add] expected at most 2^32 vectors in one index");
    slot = static_cast<uint32_t>(ids_.size());
    state_.resize(slot + size_t{1});
    ids_.resize(slot + size_t{1});
  }
  ids_[slot] = id;
  state_[slot] = kAlive;
  by_id_.insert(slot);
  return slot;
}

void SlotTable::kill(uint32_t slot) {
  by_id_.erase(slot);
  state_[slot] &= kCopies;
  ++n_dead_;
}

void SlotTable::recycle() {
  free_.clear();
  n_dead_ = 0;
  for (uint32_t slot = 0; slot < ids_.size(); ++slot) {
    if (state_[slot] == 0) free_.push_back(slot);
    n_dead_ += !alive(slot) && copies(slot) > 0 ? 1 : 0;
  }
}

void SlotTable::write(IndexFileWriter& file) const {
  file.put<uint64_t>(ids_.size());
  file.put_all(std::span(ids_.data(), ids_.size()));
  file.put_all(std::span(state_.data(), state_.size()));
}

void SlotTable::read(ByteReader& reader) {
  const auto n = reader.get<uint64_t>();
  reader.expect_left(n, 9);
  if (n > 0xFFFFFFFEu)
    fail(ErrorCode::kCorruptData, "[read index] {}: expected under 2^32 slots, found {}", reader.what(), n);
  ids_.resize(n);
  state_.resize(n);
  reader.get_all(std::span(ids_.data(), n));
  reader.get_all(std::span(state_.data(), n));
  for (uint32_t slot = 0; slot < n; ++slot) {
    if (!alive(slot)) continue;
    if (by_id_.find(ids_[slot])) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected each id once, found {} twice", reader.what(),
           ids_[slot]);
    }
    by_id_.insert(slot);
  }
  recycle();
}

}  // namespace mneme::ann
