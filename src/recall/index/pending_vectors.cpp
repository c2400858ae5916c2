#include "recall/index/pending_vectors.h"

#include <algorithm>

namespace mneme::ann {

PendingVectors::PendingVectors(Ledger& ledger, size_t element_bytes)
    : element_bytes_(element_bytes),
      elements_(ledger, Tag::kIndex, "vectors to be written"),
      slots_(ledger, Tag::kIndex, "slots to be written"),
      maps_(ledger.reserve(Tag::kIndex, 0, "lists to be written")) {}

void PendingVectors::count_maps() {
  // A node of a hash table takes 32 bytes and 8 for its bucket; a list besides its vector of numbers.
  const uint64_t bytes = numbers_.size() * 40 + lists_.size() * 80 + n_assigned_ * 8;
  if (bytes > maps_.bytes()) maps_.resize(round_up<uint64_t>(bytes, 1 << 16));
}

uint32_t PendingVectors::add(uint32_t slot, const std::byte* element) {
  const auto [at, fresh] = numbers_.try_emplace(slot, static_cast<uint32_t>(slots_.size()));
  if (!fresh) return at->second;
  try {
    count_maps();
    elements_.resize(elements_.size() + element_bytes_);
    slots_.push_back(slot);
  } catch (...) {
    elements_.resize(slots_.size() * element_bytes_);
    numbers_.erase(at);
    throw;
  }
  std::copy_n(element, element_bytes_, elements_.end() - element_bytes_);
  return at->second;
}

void PendingVectors::assign(uint32_t head, uint32_t number) {
  std::vector<uint32_t>& list = lists_[head];
  if (std::find(list.begin(), list.end(), number) != list.end()) return;
  list.push_back(number);
  ++n_assigned_;
  count_maps();
}

std::span<const uint32_t> PendingVectors::of(uint32_t head) const {
  const auto found = lists_.find(head);
  return found == lists_.end() ? std::span<const uint32_t>() : std::span<const uint32_t>(found->second);
}

bool PendingVectors::any_list(uint32_t* head) const {
  if (lists_.empty()) return false;
  *head = lists_.begin()->first;
  return true;
}

void PendingVectors::clear() {
  elements_.clear();
  slots_.clear();
  numbers_ = {};
  lists_ = {};
  n_assigned_ = 0;
  maps_.resize(0);
}

}  // namespace mneme::ann
