// Building the lists of a SpannIndex from many vectors at once.
#include <algorithm>
#include <mutex>
#include <numeric>

#include "base/error.h"
#include "base/parallel.h"
#include "recall/index/balanced_clustering.h"
#include "recall/index/spann_index.h"

namespace mneme::ann {
namespace {

/// A vector on its way into a list.
struct Assignment {
  float distance;  ///< To the head.
  uint32_t vector;
  bool nearest;  ///< The head is the vector's nearest: this copy is never cut.
};

}  // namespace

void SpannIndex::build(std::span<const float> mapped, std::span<const uint32_t> slots) {
  const size_t d = space_.dimension(), n = slots.size(), most = options_.closure.copies;
  // Scratch: numbers of the clustering, assignments by vector and by head, centres.
  const Reservation room = ledger_->reserve(
      Tag::kScratch,
      n * (8 + most * (sizeof(HeadHit) + sizeof(Assignment)) + 1 + d * sizeof(float) / options_.leaf * 2),
      "building lists");

  ClusteringOptions clustering;
  clustering.leaf = options_.leaf;
  clustering.seed = options_.seed;
  std::vector<float> centres = balanced_centres(mapped, d, clustering);
  const size_t n_heads = centres.size() / d;
  auto heads = std::make_unique<HeadTable>(*ledger_, d);
  heads->add(centres);
  centres = {};

  std::vector<HeadHit> chosen(n * most);
  std::vector<uint8_t> n_chosen(n);
  constexpr size_t kPiece = 512;
  parallel_dynamic((n + kPiece - 1) / kPiece, [&](size_t piece) {
    std::vector<HeadHit> taken;
    for (size_t i = piece * kPiece; i < std::min(n, (piece + 1) * kPiece); ++i) {
      closure_heads(*heads, mapped.subspan(i * d, d), options_.closure, taken);
      std::copy(taken.begin(), taken.end(), chosen.begin() + static_cast<ptrdiff_t>(i * most));
      n_chosen[i] = static_cast<uint8_t>(taken.size());
    }
  });

  std::vector<size_t> begin(n_heads + 1, 0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t c = 0; c < n_chosen[i]; ++c) ++begin[chosen[i * most + c].node + 1];
  }
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<Assignment> assignments(begin.back());
  std::vector<size_t> next(begin.begin(), begin.end() - 1);
  for (size_t i = 0; i < n; ++i) {
    for (size_t c = 0; c < n_chosen[i]; ++c) {
      const HeadHit& to = chosen[i * most + c];
      assignments[next[to.node]++] = {to.distance, static_cast<uint32_t>(i), c == 0};
    }
  }
  chosen = {};

  // Lists in order of distance; beyond the limit only the copies that are a vector's first stay.
  std::vector<ListEntry> entries(n_heads);
  std::vector<uint8_t> copies(n, 0);
  std::vector<uint32_t> too_long;
  Posting list;
  std::vector<std::byte> element(codec_.bytes());
  const auto write_list = [&](uint32_t head) {
    const auto from = assignments.begin() + static_cast<ptrdiff_t>(begin[head]);
    const auto to = assignments.begin() + static_cast<ptrdiff_t>(begin[head + 1]);
    std::sort(from, to, [](const Assignment& a, const Assignment& b) {
      return a.distance < b.distance || (a.distance == b.distance && a.vector < b.vector);
    });
    size_t spare = options_.list_limit;
    const auto n_first = static_cast<size_t>(std::count_if(from, to, [](const Assignment& a) { return a.nearest; }));
    spare -= std::min(spare, n_first);
    list.slots.clear();
    list.elements.clear();
    for (auto a = from; a != to; ++a) {
      if (!a->nearest && spare == 0) continue;
      spare -= a->nearest ? 0 : 1;
      codec_.encode(mapped.subspan(a->vector * d, d), element.data());
      list.add(slots[a->vector], element.data(), element.size());
      ++copies[a->vector];
    }
    entries[head] = postings_->write(head, list.view());
    if (list.size() > options_.list_limit) too_long.push_back(head);
  };
  try {
    for (uint32_t head = 0; head < n_heads; ++head) write_list(head);
  } catch (const Error&) {
    for (const ListEntry& entry : entries) postings_->drop(entry);
    throw;
  }

  {
    const std::lock_guard hold(lock_);
    lists_.resize(n_heads);
    std::copy(entries.begin(), entries.end(), lists_.begin());
    for (size_t i = 0; i < n; ++i) {
      for (uint8_t c = 0; c < copies[i]; ++c) slots_->add_copy(slots[i]);
    }
    heads_ = std::move(heads);
    pending_.clear();
    changed_ = true;
  }
  for (uint32_t head : too_long) rewrite(head);
}

void SpannIndex::build_from_pending() {
  const size_t d = space_.dimension();
  std::vector<uint32_t> slots;
  for (uint32_t number = 0; number < pending_.size(); ++number) {
    if (slots_->alive(pending_.slot(number))) slots.push_back(pending_.slot(number));
  }
  Buffer rows(*ledger_, Tag::kScratch, slots.size() * d * sizeof(float), "building lists");
  size_t at = 0;
  for (uint32_t number = 0; number < pending_.size(); ++number) {
    if (slots_->alive(pending_.slot(number)))
      codec_.decode(pending_.element(number), rows.as<float>().subspan(d * at++, d));
  }
  build(rows.as<float>(), slots);
}

void SpannIndex::bulk_add(std::span<const uint64_t> ids, std::span<const float> rows) {
  const size_t d = dimension();
  space_ = VectorSpace(metric(), d, longest_row(rows, d));
  const size_t mapped_d = space_.dimension();
  Buffer mapped;
  std::span<const float> mapped_rows = rows;
  if (!space_.is_identity()) {
    mapped = Buffer(*ledger_, Tag::kScratch, ids.size() * mapped_d * sizeof(float), "building lists");
    for (size_t i = 0; i < ids.size(); ++i) {
      space_.map_row(rows.subspan(i * d, d), mapped.as<float>().subspan(i * mapped_d, mapped_d), ids[i]);
    }
    mapped_rows = mapped.as<float>();
  }
  std::vector<uint32_t> slots;
  slots.reserve(ids.size());
  try {
    {
      const std::lock_guard hold(lock_);
      for (uint64_t id : ids) slots.push_back(slots_->add(id));
    }
    build(mapped_rows, slots);
  } catch (...) {
    const std::lock_guard hold(lock_);
    if (!heads_) {
      for (uint32_t slot : slots) slots_->kill(slot);
      slots_->recycle();
    }
    throw;
  }
}

}  // namespace mneme::ann
