#include "recall/index/exact_index.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/error.h"
#include "base/mapped_file.h"
#include "kernels/vector_distance.h"
#include "kernels/vector_ops.h"
#include "recall/index/byte_reader.h"
#include "recall/index/index_file.h"
#include "recall/index/top_k.h"
#include "recall/index/unit_length.h"

namespace mneme::ann {

ExactIndex::ExactIndex(Ledger& ledger, size_t dimension, Metric metric)
    : VectorIndex(dimension, metric),
      ids_(ledger, Tag::kIndex, "ids of vectors"),
      rows_(ledger, Tag::kIndex, "vectors"),
      slots_(ledger, ids_) {}

size_t ExactIndex::size() const {
  const std::shared_lock hold(lock_);
  return ids_.size();
}

bool ExactIndex::contains(uint64_t id) const {
  const std::shared_lock hold(lock_);
  return slots_.find(id).has_value();
}

IndexStats ExactIndex::stats() const {
  const std::shared_lock hold(lock_);
  IndexStats stats;
  stats.kind = "exact";
  stats.vectors = ids_.size();
  stats.ram_bytes = ids_.bytes() + rows_.bytes() + slots_.bytes();
  return stats;
}

void ExactIndex::do_add(std::span<const uint64_t> ids, std::span<const float> rows) {
  const std::lock_guard hold(lock_);
  const size_t d = dimension(), before = ids_.size();
  rows_.resize((before + ids.size()) * d);  // all memory first, so that a refusal changes nothing
  ids_.resize(before + ids.size());
  size_t n = before;
  for (size_t i = 0; i < ids.size(); ++i) {
    auto slot = slots_.find(ids[i]);
    if (!slot) {
      slot = static_cast<uint32_t>(n++);
      ids_[*slot] = ids[i];
      slots_.insert(*slot);
    }
    const std::span<float> out(rows_.data() + *slot * d, d);
    const auto row = rows.subspan(i * d, d);
    if (metric() == Metric::kCosine) {
      to_unit_length(row, out);
    } else {
      std::copy(row.begin(), row.end(), out.begin());
    }
  }
  ids_.resize(n);
  rows_.resize(n * d);
}

size_t ExactIndex::do_remove(std::span<const uint64_t> ids) {
  const std::lock_guard hold(lock_);
  const size_t d = dimension();
  size_t removed = 0;
  for (uint64_t id : ids) {
    const auto slot = slots_.find(id);
    if (!slot) continue;
    const auto last = static_cast<uint32_t>(ids_.size() - 1);
    slots_.erase(*slot);
    if (*slot != last) {  // the last row fills the hole
      slots_.erase(last);
      ids_[*slot] = ids_[last];
      std::copy_n(rows_.data() + last * d, d, rows_.data() + *slot * d);
      slots_.insert(*slot);
    }
    ids_.resize(last);
    rows_.resize(last * d);
    ++removed;
  }
  return removed;
}

SearchResult ExactIndex::do_search(std::span<const float> query, const SearchParameters& parameters) const {
  const std::shared_lock hold(lock_);
  const size_t d = dimension(), n = ids_.size();
  std::vector<float> unit;
  if (metric() == Metric::kCosine) {
    unit.resize(d);
    to_unit_length(query, unit);
    query = unit;
  }
  TopK best(parameters.k);
  const auto l2 = kernels::distance_ops().l2_f32;
  const auto dot = kernels::vector_ops().dot;
  for (size_t i = 0; i < n; ++i) {
    const float* row = rows_.data() + i * d;
    const float distance = metric() == Metric::kL2             ? l2(query.data(), row, d)
                           : metric() == Metric::kInnerProduct ? -dot(query.data(), row, d)
                                                               : 1 - dot(query.data(), row, d);
    if (best.may_enter(distance)) best.offer({ids_[i], distance});
  }
  return {best.take(), {n, 0, 0, 0}};
}

bool ExactIndex::do_holds(uint64_t id, std::span<const float> row) const {
  const std::shared_lock hold(lock_);
  const auto slot = slots_.find(id);
  return slot && keeps_as(row, {rows_.data() + *slot * dimension(), dimension()});
}

void ExactIndex::save(const std::string& path) {
  const std::shared_lock hold(lock_);
  IndexFileWriter file(path, {IndexFileKind::kExact, metric(), dimension()});
  file.put<uint64_t>(ids_.size());
  file.put_all(std::span(ids_.data(), ids_.size()));
  file.put_all(std::span(rows_.data(), rows_.size()));
  file.commit();
}

std::unique_ptr<ExactIndex> ExactIndex::load(Ledger& ledger, const std::string& path) {
  const MappedFile file(path);
  return parse(ledger, file.bytes(), path);
}

std::unique_ptr<ExactIndex> ExactIndex::parse(Ledger& ledger, std::span<const std::byte> bytes, std::string_view what) {
  const IndexFile file = parse_index_file(bytes, IndexFileKind::kExact, what);
  ByteReader reader(file.payload, what);
  const size_t d = file.header.dimension;
  const auto n = reader.get<uint64_t>();
  reader.expect_left(n, 8 + d * 4);
  auto index = std::make_unique<ExactIndex>(ledger, d, file.header.metric);
  index->ids_.resize(n);
  index->rows_.resize(n * d);
  reader.get_all(std::span(index->ids_.data(), n));
  reader.get_all(std::span(index->rows_.data(), n * d));
  for (uint32_t slot = 0; slot < n; ++slot) {
    if (index->slots_.find(index->ids_[slot])) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected each id once, found {} twice", what, index->ids_[slot]);
    }
    index->slots_.insert(slot);
  }
  index->verify();
  return index;
}

void ExactIndex::verify() const {
  const std::shared_lock hold(lock_);
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (!std::isfinite(rows_[i])) {
      fail(ErrorCode::kCorruptData, "[verify index] expected finite numbers, found {} in vector {}", rows_[i],
           ids_[i / dimension()]);
    }
  }
}

}  // namespace mneme::ann
