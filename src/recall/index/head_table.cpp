#include "recall/index/head_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/half.h"
#include "base/parallel.h"
#include "kernels/vector_distance.h"
#include "kernels/vector_ops.h"
#include "recall/index/balanced_clustering.h"

namespace mneme::ann {
namespace {

constexpr size_t kNoCells = 256;    ///< Heads that are compared one by one.
constexpr size_t kProbes = 8;       ///< Cells that a search looks into at least,
constexpr size_t kPerWanted = 4;    ///< and heads for each that is wanted.

uint64_t cell_bytes(uint64_t n_heads, uint64_t n_cells, size_t dimension) {
  return n_cells * (dimension * sizeof(float) + sizeof(std::vector<uint32_t>)) + n_heads * sizeof(uint32_t) * 3 / 2;
}

}  // namespace

HeadTable::HeadTable(Ledger& ledger, size_t dimension)
    : dimension_(dimension),
      rows_(ledger, Tag::kIndex, "heads"),
      cell_(ledger, Tag::kIndex, "cells of heads"),
      members_(1),
      reservation_(ledger.reserve(Tag::kIndex, 0, "cells")) {}

uint64_t HeadTable::bytes_of(uint64_t n, size_t dimension) {
  const auto cells = static_cast<uint64_t>(2 * std::sqrt(static_cast<double>(n)));
  return n * (dimension * sizeof(uint16_t) + sizeof(uint32_t)) + cell_bytes(n, n > kNoCells ? cells : 1, dimension);
}

void HeadTable::add(std::span<const float> rows) {
  const size_t before = size(), n = rows.size() / dimension_;
  if (before + n >= kRemoved) fail(ErrorCode::kInvalidArgument, "[index] expected fewer than 2^32 heads");
  reservation_.resize(cell_bytes(before + n, std::max<size_t>(1, n_cells()), dimension_));
  rows_.resize((before + n) * dimension_);
  try {
    cell_.resize(before + n);
  } catch (const Error&) {
    rows_.resize(before * dimension_);
    throw;
  }
  kernels::vector_ops().f32_to_f16(rows.data(), n * dimension_, rows_.data() + before * dimension_);
  for (size_t i = 0; i < n; ++i) enter(static_cast<uint32_t>(before + i), nearest_cell(rows.data() + i * dimension_));
  if (n_live_ > kNoCells && n_live_ > 2 * grouped_) make_cells();
}

uint32_t HeadTable::nearest_cell(const float* row) const {
  const auto l2 = kernels::distance_ops().l2_f32;
  uint32_t best = 0;
  float least = std::numeric_limits<float>::infinity();
  for (uint32_t c = 0; c < n_cells(); ++c) {
    const float distance = l2(row, centres_.data() + c * dimension_, dimension_);
    if (distance < least) {
      least = distance;
      best = c;
    }
  }
  return best;
}

void HeadTable::enter(uint32_t node, uint32_t cell) {
  cell_[node] = cell;
  members_[cell].push_back(node);
  ++n_live_;
}

void HeadTable::leave(uint32_t node) {
  std::vector<uint32_t>& members = members_[cell_[node]];
  members.erase(std::find(members.begin(), members.end(), node));
  cell_[node] = kRemoved;
  --n_live_;
}

void HeadTable::remove(uint32_t node) {
  if (!removed(node)) leave(node);
}

void HeadTable::restore(uint32_t node) {
  if (!removed(node)) return;
  std::vector<float> own(dimension_);
  row(node, own);
  enter(node, nearest_cell(own.data()));
}

void HeadTable::set_row(uint32_t node, std::span<const float> row) {
  leave(node);
  kernels::vector_ops().f32_to_f16(row.data(), dimension_, rows_.data() + size_t{node} * dimension_);
  enter(node, nearest_cell(row.data()));
}

void HeadTable::blot_out(uint32_t node) {
  if (removed(node)) std::fill_n(rows_.data() + size_t{node} * dimension_, dimension_, uint16_t{0});
}

void HeadTable::renew_cells() {
  if (n_cells() == 0) return;
  if (n_live_ > 0) return make_cells();
  std::fill(centres_.begin(), centres_.end(), 0.0f);
}

void HeadTable::make_cells() {
  std::vector<uint32_t> live;
  live.reserve(n_live_);
  for (uint32_t node = 0; node < size(); ++node) {
    if (!removed(node)) live.push_back(node);
  }
  std::vector<float> rows(live.size() * dimension_);
  for (size_t i = 0; i < live.size(); ++i) row(live[i], std::span(rows).subspan(i * dimension_, dimension_));
  ClusteringOptions options;
  options.leaf = std::max<size_t>(8, static_cast<size_t>(std::sqrt(static_cast<double>(live.size())) / 2));
  centres_ = balanced_centres(rows, dimension_, options);
  parallel_for(live.size(), 256, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) cell_[live[i]] = nearest_cell(rows.data() + i * dimension_);
  });
  grouped_ = live.size();
  list_members();
}

void HeadTable::list_members() {
  members_.assign(std::max<size_t>(1, n_cells()), {});
  n_live_ = 0;
  for (uint32_t node = 0; node < size(); ++node) {
    if (!removed(node)) enter(node, cell_[node]);
  }
  reservation_.resize(cell_bytes(size(), members_.size(), dimension_));
}

uint64_t HeadTable::search(std::span<const float> query, size_t k, std::vector<HeadHit>& hits) const {
  const auto l2 = kernels::distance_ops().l2_f16;
  hits.clear();
  const auto look_into = [&](uint32_t cell) {
    for (const uint32_t node : members_[cell]) hits.push_back({l2(query.data(), stored(node), dimension_), node});
  };
  const size_t cells = n_cells();
  if (cells == 0) {
    look_into(0);
  } else {
    thread_local std::vector<std::pair<float, uint32_t>> order;
    order.resize(cells);
    for (uint32_t c = 0; c < cells; ++c) {
      order[c] = {kernels::distance_ops().l2_f32(query.data(), centres_.data() + c * dimension_, dimension_), c};
    }
    // In runs, so that few cells are put in order when few are wanted.
    constexpr size_t kRun = 2 * kProbes;
    for (size_t i = 0; i < cells && (i < kProbes || hits.size() < kPerWanted * k); ++i) {
      if (i % kRun == 0) {
        std::partial_sort(order.begin() + static_cast<ptrdiff_t>(i),
                          order.begin() + static_cast<ptrdiff_t>(std::min(cells, i + kRun)), order.end());
      }
      look_into(order[i].second);
    }
  }
  const uint64_t compared = cells + hits.size();
  const auto nearer = [](const HeadHit& a, const HeadHit& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.node < b.node;
  };
  const size_t n = std::min(k, hits.size());
  std::partial_sort(hits.begin(), hits.begin() + static_cast<ptrdiff_t>(n), hits.end(), nearer);
  hits.resize(n);
  return compared;
}

void HeadTable::row(uint32_t node, std::span<float> out) const {
  kernels::vector_ops().f16_to_f32(stored(node), dimension_, out.data());
}

float HeadTable::distance(uint32_t a, uint32_t b) const {
  return kernels::distance_ops().l2_f16_f16(stored(a), stored(b), dimension_);
}

namespace {

struct TableHead {
  uint64_t n_heads;
  uint32_t dimension, n_cells;
};

}  // namespace

void HeadTable::write(IndexFileWriter& file) const {
  file.put(TableHead{size(), static_cast<uint32_t>(dimension_), static_cast<uint32_t>(n_cells())});
  file.put_all(std::span<const uint16_t>(rows_.data(), size() * dimension_));
  file.put_all(std::span<const uint32_t>(cell_.data(), size()));
  file.put_all(std::span<const float>(centres_));
}

std::unique_ptr<HeadTable> HeadTable::read(Ledger& ledger, ByteReader& reader) {
  const auto head = reader.get<TableHead>();
  const auto corrupt = [&](std::string_view found) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected a sound table of heads, found {}", reader.what(), found);
  };
  if (head.dimension == 0 || head.dimension > kMaxDimension + 1 || head.n_heads >= kRemoved ||
      head.n_cells > head.n_heads) {
    corrupt("sizes out of range");
  }
  reader.expect_left(head.n_heads, head.dimension * sizeof(uint16_t) + sizeof(uint32_t));
  auto table = std::make_unique<HeadTable>(ledger, head.dimension);
  const size_t n = head.n_heads;
  table->rows_.resize(n * head.dimension);
  table->cell_.resize(n);
  reader.get_all(std::span(table->rows_.data(), n * head.dimension));
  reader.get_all(std::span(table->cell_.data(), n));
  reader.expect_left(head.n_cells, head.dimension * sizeof(float));
  table->reservation_.resize(cell_bytes(n, std::max(1u, head.n_cells), head.dimension));
  table->centres_.resize(size_t{head.n_cells} * head.dimension);
  reader.get_all(std::span(table->centres_));
  constexpr uint16_t kExponent = 0x7c00;
  for (const uint16_t half : std::span<const uint16_t>(table->rows_.data(), n * head.dimension)) {
    if ((half & kExponent) == kExponent) corrupt("a row that is not finite");
  }
  if (!std::all_of(table->centres_.begin(), table->centres_.end(), [](float x) { return std::isfinite(x); }))
    corrupt("a centre that is not finite");
  for (const uint32_t cell : table->cell_) {
    if (cell != kRemoved && cell >= std::max(1u, head.n_cells)) corrupt("a cell that is not there");
  }
  table->list_members();
  table->grouped_ = head.n_cells > 0 ? table->n_live_ : 0;
  return table;
}

}  // namespace mneme::ann
