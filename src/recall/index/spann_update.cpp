// Changes of a SpannIndex: insertion, removal, and the rewriting of lists with splits and dissolved lists.
#include <algorithm>
#include <mutex>
#include <unordered_set>

#include "base/error.h"
#include "recall/index/balanced_clustering.h"
#include "recall/index/spann_index.h"

namespace mneme::ann {
namespace {

/// Heads around a split one whose lists may hold vectors that are now nearer to a new head.
constexpr size_t kNeighbours = 8;
/// A first addition that makes at least so many heads is built at once, without log.
constexpr size_t kBulkHeads = 64;
/// Part of the vectors that may be dead in lists before a flush goes through all of them.
constexpr double kDeadPart = 0.2;

}  // namespace

void SpannIndex::do_add(std::span<const uint64_t> ids, std::span<const float> rows) {
  const std::lock_guard alone(writer_);
  const size_t most = std::max<size_t>(1, options_.pending_bytes / (codec_.bytes() + 96));
  if (!heads_ && pending_.size() == 0 && slots_->n_alive() == 0 && ids.size() >= kBulkHeads * options_.leaf) {
    bulk_add(ids, rows);
    checkpoint();
    return;
  }
  for (size_t begin = 0; begin < ids.size(); begin += most) {
    if (pending_.bytes() >= options_.pending_bytes) flush();
    const size_t n = std::min(most, ids.size() - begin);
    insert(ids.subspan(begin, n), rows.subspan(begin * dimension(), n * dimension()), false);
  }
}

size_t SpannIndex::do_remove(std::span<const uint64_t> ids) {
  const std::lock_guard alone(writer_);
  return erase(ids, false);
}

void SpannIndex::insert(std::span<const uint64_t> ids, std::span<const float> rows, bool logged) {
  const size_t d = dimension(), mapped_d = space_.dimension(), n = ids.size();
  if (metric() == Metric::kInnerProduct && space_.radius() == 0) {
    space_ = VectorSpace(metric(), d, std::max(1.25f * longest_row(rows, d), 1e-6f));
  }
  std::vector<float> mapped(n * mapped_d);
  for (size_t i = 0; i < n; ++i)
    space_.map_row(rows.subspan(i * d, d), std::span(mapped).subspan(i * mapped_d, mapped_d), ids[i]);
  if (!logged) log_->append(true, ids, rows, options_.sync);
  std::vector<HeadHit> heads;
  std::vector<std::byte> element(codec_.bytes());
  for (size_t i = 0; i < n; ++i) {
    const auto row = std::span<const float>(mapped).subspan(i * mapped_d, mapped_d);
    codec_.encode(row, element.data());
    if (heads_) closure_heads(*heads_, row, options_.closure, heads);
    const std::lock_guard hold(lock_);
    if (const auto old = slots_->find(ids[i])) slots_->kill(*old);
    const uint32_t number = pending_.add(slots_->add(ids[i]), element.data());
    for (const HeadHit& head : heads) pending_.assign(head.node, number);
  }
  changed_ = true;
}

size_t SpannIndex::erase(std::span<const uint64_t> ids, bool logged) {
  std::vector<uint64_t> present;
  for (uint64_t id : ids) {
    if (slots_->find(id)) present.push_back(id);
  }
  std::sort(present.begin(), present.end());
  present.erase(std::unique(present.begin(), present.end()), present.end());
  if (present.empty()) return 0;
  if (!logged) log_->append(false, present, {}, options_.sync);
  const std::lock_guard hold(lock_);
  for (uint64_t id : present) slots_->kill(*slots_->find(id));
  changed_ = true;
  return present.size();
}

void SpannIndex::flush() {
  if (!changed_) return;
  if (!heads_) {
    if (slots_->n_alive() > 0) build_from_pending();
  } else {
    if (static_cast<double>(slots_->n_dead_in_lists()) > kDeadPart * static_cast<double>(slots_->n_alive() + 64)) {
      const auto n = static_cast<uint32_t>(heads_->size());
      for (uint32_t head = 0; head < n; ++head) {
        if (!heads_->removed(head)) rewrite(head);
      }
    }
    for (uint32_t head = 0; pending_.any_list(&head);) rewrite(head);
    rebuild_heads_if_worn();
  }
  checkpoint();
}

void SpannIndex::purge() {
  const std::lock_guard alone(writer_);
  flush();
  for (uint32_t head = 0; heads_ && head < heads_->size(); ++head) {
    if (!heads_->removed(head)) purge_list(head);
  }
  for (uint32_t head = 0; pending_.any_list(&head);) rewrite(head);
  {
    const std::lock_guard hold(lock_);
    for (uint32_t head = 0; heads_ && head < heads_->size(); ++head) {
      if (heads_->removed(head)) heads_->blot_out(head);
    }
    if (heads_) heads_->renew_cells();
  }
  checkpoint();
  postings_->clear_free_pages();
}

void SpannIndex::purge_list(uint32_t head) {
  const Posting before = postings_->read(lists_[head]);
  const bool all_alive = std::all_of(before.slots.begin(), before.slots.end(), [&](uint32_t slot) {
    return slot < slots_->size() && slots_->alive(slot);
  });
  if (all_alive) return;
  // A head may have been made of one vector alone: it moves to the mean of what is left.
  const size_t d = space_.dimension(), bytes = codec_.bytes();
  std::vector<float> mean(d), row(d);
  size_t n = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before.slots[i] >= slots_->size() || !slots_->alive(before.slots[i])) continue;
    codec_.decode(before.elements.data() + i * bytes, row);
    for (size_t x = 0; x < d; ++x) mean[x] += row[x];
    ++n;
  }
  for (float& x : mean) x /= static_cast<float>(std::max<size_t>(n, 1));
  if (n > 0) {
    const std::lock_guard hold(lock_);
    heads_->set_row(head, mean);
  }
  rewrite(head);
  // The only list of an index stays, empty.
  if (n == 0 && !heads_->removed(head)) {
    const std::lock_guard hold(lock_);
    heads_->set_row(head, mean);
  }
}

void SpannIndex::install(uint32_t head, const ListEntry& entry, std::span<const uint32_t> slots) {
  lists_[head] = entry;
  for (uint32_t slot : slots) slots_->add_copy(slot);
}

void SpannIndex::uninstall(uint32_t head, std::span<const uint32_t> slots) {
  for (uint32_t slot : slots) slots_->drop_copy(slot);
  postings_->drop(lists_[head]);
  lists_[head] = {};
  pending_.drop_list(head);
}

void SpannIndex::rewrite(uint32_t head) {
  const Posting before = postings_->read(lists_[head]);
  Posting now;
  std::unordered_set<uint32_t> held;
  const size_t bytes = codec_.bytes();
  for (size_t i = 0; i < before.size(); ++i) {
    if (before.slots[i] >= slots_->size())
      fail(ErrorCode::kCorruptData, "[rewrite list] expected a known slot, found {}", before.slots[i]);
    if (!slots_->alive(before.slots[i])) continue;
    now.add(before.slots[i], before.elements.data() + i * bytes, bytes);
    held.insert(before.slots[i]);
  }
  for (uint32_t number : pending_.of(head)) {
    const uint32_t slot = pending_.slot(number);
    if (!slots_->alive(slot) || !held.insert(slot).second) continue;
    if (slots_->copies(slot) >= SlotTable::kMostCopies) continue;
    now.add(slot, pending_.element(number), bytes);
  }
  if (now.size() > options_.list_limit && split(head, before, now)) return;
  if (now.size() < before.size() && now.size() <= options_.list_limit / 16 &&
      heads_->size() > heads_->n_removed() + 1) {
    return dissolve(head, before, now);
  }
  if (now.slots == before.slots) {  // nothing new
    const std::lock_guard hold(lock_);
    return pending_.drop_list(head);
  }
  const ListEntry entry = postings_->write(head, now.view());
  const std::lock_guard hold(lock_);
  uninstall(head, before.slots);
  install(head, entry, now.slots);
}

bool SpannIndex::split(uint32_t head, const Posting& before, const Posting& now) {
  const size_t d = space_.dimension(), n = now.size(), bytes = codec_.bytes();
  std::vector<float> rows(n * d), centres(2 * d);
  for (size_t i = 0; i < n; ++i) codec_.decode(now.elements.data() + i * bytes, std::span(rows).subspan(i * d, d));
  std::vector<uint8_t> part(n);
  if (!split_in_two(rows, d, options_.seed + head, centres, part))
    return false;  // equal vectors may be as many as they like

  // The closure rule between the two: near the border, copies in both, while there is room.
  const VectorCodec exact(VectorType::kF32, d);
  const auto to_centre = [&](size_t i, size_t side) {
    return exact.distance(rows.data() + i * d, reinterpret_cast<const std::byte*>(centres.data() + side * d));
  };
  const float apart = exact.distance(centres.data(), reinterpret_cast<const std::byte*>(centres.data() + d));
  std::vector<std::pair<float, size_t>> border;
  Posting halves[2];
  for (size_t i = 0; i < n; ++i) {
    halves[part[i]].add(now.slots[i], now.elements.data() + i * bytes, bytes);
    const float far = to_centre(i, 1 - part[i]), near = to_centre(i, part[i]);
    if (options_.closure.rng_factor * apart >= far && far <= options_.closure.reach * near &&
        slots_->copies(now.slots[i]) < options_.closure.copies) {
      border.emplace_back(far, i);
    }
  }
  std::sort(border.begin(), border.end());
  for (const auto& [far, i] : border) {
    Posting& half = halves[1 - part[i]];
    if (half.size() < options_.list_limit * 3 / 4) half.add(now.slots[i], now.elements.data() + i * bytes, bytes);
  }

  std::vector<HeadHit> near;
  std::vector<float> old_centre(d);
  heads_->row(head, old_centre);
  heads_->search(old_centre, kNeighbours + 1, near);
  const auto first = static_cast<uint32_t>(heads_->size());
  ListEntry entries[2] = {postings_->write(first, halves[0].view()), {}};
  try {
    entries[1] = postings_->write(first + 1, halves[1].view());
    const std::lock_guard hold(lock_);
    lists_.resize(first + size_t{2});
    heads_->add(centres);  // as nodes first and first + 1
    uninstall(head, before.slots);
    heads_->remove(head);
    for (uint32_t side : {0u, 1u}) install(first + side, entries[side], halves[side].slots);
    ++splits_;
  } catch (const Error&) {
    for (const ListEntry& entry : entries) postings_->drop(entry);
    throw;
  }
  std::vector<uint32_t> neighbours;
  for (const HeadHit& hit : near) {
    if (hit.node != head) neighbours.push_back(hit.node);
  }
  adopt_neighbours(neighbours, first);
  for (uint32_t side : {0u, 1u}) {
    if (lists_[first + side].count > options_.list_limit) rewrite(first + side);
  }
  return true;
}

void SpannIndex::adopt_neighbours(std::span<const uint32_t> neighbours, uint32_t first_new) {
  const size_t d = space_.dimension(), bytes = codec_.bytes();
  std::vector<float> row(d), centres(3 * d);
  heads_->row(first_new, std::span(centres).first(d));
  heads_->row(first_new + 1, std::span(centres).subspan(d, d));
  std::vector<HeadHit> heads;
  std::unordered_set<uint32_t> looked_at;
  for (uint32_t neighbour : neighbours) {
    const Posting list = postings_->read(lists_[neighbour]);
    heads_->row(neighbour, std::span(centres).subspan(2 * d, d));
    for (size_t i = 0; i < list.size(); ++i) {
      const uint32_t slot = list.slots[i];
      const std::byte* element = list.elements.data() + i * bytes;
      if (slot >= slots_->size() || !slots_->alive(slot) || slots_->copies(slot) >= options_.closure.copies) continue;
      const float own = codec_.distance(centres.data() + 2 * d, element);
      if (codec_.distance(centres.data(), element) >= own && codec_.distance(centres.data() + d, element) >= own)
        continue;
      if (!looked_at.insert(slot).second) continue;
      codec_.decode(element, row);
      closure_heads(*heads_, row, options_.closure, heads);
      for (const HeadHit& to : heads) {
        if (to.node != first_new && to.node != first_new + 1) continue;
        const std::lock_guard hold(lock_);
        pending_.assign(to.node, pending_.add(slot, element));
      }
    }
  }
}

void SpannIndex::dissolve(uint32_t head, const Posting& before, const Posting& now) {
  const size_t bytes = codec_.bytes();
  std::vector<float> row(space_.dimension());
  std::vector<HeadHit> heads;
  const std::lock_guard hold(lock_);
  heads_->remove(head);  // so that no vector comes back to it
  try {
    for (size_t i = 0; i < now.size(); ++i) {
      const std::byte* element = now.elements.data() + i * bytes;
      codec_.decode(element, row);
      closure_heads(*heads_, row, options_.closure, heads);
      const uint32_t number = pending_.add(now.slots[i], element);
      // A vector that is elsewhere too needs no more than its nearest list.
      if (slots_->copies(now.slots[i]) > 1) heads.resize(1);
      for (const HeadHit& to : heads) pending_.assign(to.node, number);
    }
  } catch (const Error&) {  // out of memory: the list stays as it is
    heads_->restore(head);
    throw;
  }
  uninstall(head, before.slots);
  ++merges_;
}

void SpannIndex::rebuild_heads_if_worn() {
  const size_t n = heads_->size(), d = space_.dimension();
  if (n < 1024 || heads_->n_removed() * 4 < n) return;
  const size_t live = n - heads_->n_removed();
  const Reservation room =
      ledger_->reserve(Tag::kScratch, live * (d * sizeof(float) + sizeof(ListEntry)), "rebuilding the heads");
  std::vector<float> rows(live * d);
  std::vector<ListEntry> lists;
  for (uint32_t head = 0; head < n; ++head) {
    if (heads_->removed(head)) continue;
    heads_->row(head, std::span(rows).subspan(lists.size() * d, d));
    lists.push_back(lists_[head]);
  }
  auto heads = std::make_unique<HeadTable>(*ledger_, d);
  heads->add(rows);
  const std::lock_guard hold(lock_);
  heads_ = std::move(heads);
  lists_.resize(live);
  std::copy(lists.begin(), lists.end(), lists_.begin());
}

}  // namespace mneme::ann
