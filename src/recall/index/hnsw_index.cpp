#include "recall/index/hnsw_index.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/error.h"
#include "base/mapped_file.h"
#include "recall/index/index_file.h"
#include "recall/index/top_k.h"
#include "recall/index/unit_length.h"

namespace mneme::ann {
namespace {

/// Rows that are linked before searches get their turn.
constexpr size_t kPiece = 4096;

GraphDistance graph_distance(Metric metric) {
  return metric == Metric::kInnerProduct ? GraphDistance::kNegativeDotF32 : GraphDistance::kL2F32;
}

}  // namespace

HnswIndex::HnswIndex(Ledger& ledger, size_t dimension, Metric metric, size_t m, size_t ef_construction, size_t capacity)
    : VectorIndex(dimension, metric),
      ledger_(&ledger),
      graph_(std::make_unique<HnswGraph>(ledger, GraphOptions{dimension, graph_distance(metric), m, ef_construction},
                                         capacity)),
      ids_(ledger, Tag::kIndex, "ids of vectors"),
      nodes_(ledger, ids_) {}

size_t HnswIndex::size() const {
  const std::shared_lock hold(lock_);
  return nodes_.size();
}

bool HnswIndex::contains(uint64_t id) const {
  const std::shared_lock hold(lock_);
  return nodes_.find(id).has_value();
}

IndexStats HnswIndex::stats() const {
  const std::shared_lock hold(lock_);
  IndexStats stats;
  stats.kind = "hnsw";
  stats.vectors = nodes_.size();
  stats.ram_bytes = graph_->bytes() + ids_.bytes() + nodes_.bytes();
  stats.dead_vectors = graph_->n_removed();
  return stats;
}

void HnswIndex::do_add(std::span<const uint64_t> ids, std::span<const float> rows) {
  const size_t d = dimension();
  std::vector<float> unit;
  for (size_t begin = 0; begin < ids.size(); begin += kPiece) {
    const size_t n = std::min(kPiece, ids.size() - begin);
    auto piece = rows.subspan(begin * d, n * d);
    if (metric() == Metric::kCosine) {
      unit.resize(n * d);
      for (size_t i = 0; i < n; ++i) to_unit_length(piece.subspan(i * d, d), std::span(unit).subspan(i * d, d));
      piece = unit;
    }
    const std::lock_guard hold(lock_);
    ids_.resize(graph_->size() + n);
    const std::vector<uint32_t> nodes = graph_->add(piece);
    for (size_t i = 0; i < n; ++i) {
      const uint64_t id = ids[begin + i];
      if (const auto old = nodes_.find(id)) {
        nodes_.erase(*old);
        graph_->remove(*old);
        graph_->blot_out(*old);
      }
      ids_[nodes[i]] = id;
      nodes_.insert(nodes[i]);
    }
  }
  rebuild_if_worn();
}

size_t HnswIndex::do_remove(std::span<const uint64_t> ids) {
  size_t removed = 0;
  {
    const std::lock_guard hold(lock_);
    for (uint64_t id : ids) {
      const auto node = nodes_.find(id);
      if (!node) continue;
      nodes_.erase(*node);
      graph_->remove(*node);
      graph_->blot_out(*node);
      ++removed;
    }
  }
  rebuild_if_worn();
  return removed;
}

void HnswIndex::rebuild_if_worn() {
  const std::lock_guard hold(lock_);
  const size_t n = graph_->size(), live = n - graph_->n_removed();
  if (n < 1024 || 3 * graph_->n_removed() < n) return;
  auto fresh = std::make_unique<HnswGraph>(*ledger_, graph_->options(), live);
  const size_t d = dimension();
  std::vector<uint64_t> ids;
  std::vector<float> rows;
  std::vector<uint64_t> id_of_node(live);
  const auto flush = [&] {
    const std::vector<uint32_t> nodes = fresh->add(rows);
    for (size_t i = 0; i < nodes.size(); ++i) id_of_node[nodes[i]] = ids[i];
    ids.clear();
    rows.clear();
  };
  for (uint32_t node = 0; node < n; ++node) {
    if (graph_->removed(node)) continue;
    ids.push_back(ids_[node]);
    rows.resize(rows.size() + d);
    graph_->row(node, std::span(rows).last(d));
    nodes_.erase(node);
    if (ids.size() == kPiece) flush();
  }
  flush();
  graph_ = std::move(fresh);
  ids_.resize(live);
  for (uint32_t node = 0; node < live; ++node) {
    ids_[node] = id_of_node[node];
    nodes_.insert(node);
  }
}

SearchResult HnswIndex::do_search(std::span<const float> query, const SearchParameters& parameters) const {
  const std::shared_lock hold(lock_);
  std::vector<float> unit;
  if (metric() == Metric::kCosine) {
    unit.resize(query.size());
    to_unit_length(query, unit);
    query = unit;
  }
  std::vector<GraphHit> found;
  SearchResult result;
  result.cost.vectors_compared = graph_->search(query, parameters.k, parameters.ef, found);
  result.hits.reserve(found.size());
  for (const GraphHit& hit : found) {
    // Of vectors of length 1, |q - x|^2 = 2 - 2 cos.
    result.hits.push_back({ids_[hit.node], metric() == Metric::kCosine ? hit.distance / 2 : hit.distance});
  }
  std::sort(result.hits.begin(), result.hits.end(), nearer);
  return result;
}

bool HnswIndex::do_holds(uint64_t id, std::span<const float> row) const {
  const std::shared_lock hold(lock_);
  const auto node = nodes_.find(id);
  if (!node) return false;
  std::vector<float> kept(dimension());
  graph_->row(*node, kept);
  return keeps_as(row, kept);
}

void HnswIndex::save(const std::string& path) {
  const std::shared_lock hold(lock_);
  IndexFileWriter file(path, {IndexFileKind::kHnsw, metric(), dimension()});
  graph_->write(file);
  file.put_all(std::span(ids_.data(), graph_->size()));
  file.commit();
}

std::unique_ptr<HnswIndex> HnswIndex::load(Ledger& ledger, const std::string& path) {
  const MappedFile file(path);
  return parse(ledger, file.bytes(), path);
}

std::unique_ptr<HnswIndex> HnswIndex::parse(Ledger& ledger, std::span<const std::byte> bytes, std::string_view what) {
  const IndexFile file = parse_index_file(bytes, IndexFileKind::kHnsw, what);
  ByteReader reader(file.payload, what);
  auto graph = HnswGraph::read(ledger, reader);
  if (graph->options().dimension != file.header.dimension ||
      graph->options().distance != graph_distance(file.header.metric)) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected a graph of dimension {}, found {}", what,
         file.header.dimension, graph->options().dimension);
  }
  auto index = std::make_unique<HnswIndex>(ledger, file.header.dimension, file.header.metric);
  const size_t n = graph->size();
  reader.expect_left(n, 8);
  index->ids_.resize(n);
  reader.get_all(std::span(index->ids_.data(), n));
  index->graph_ = std::move(graph);
  for (uint32_t node = 0; node < n; ++node) {
    if (index->graph_->removed(node)) continue;
    if (index->nodes_.find(index->ids_[node])) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected each id once, found {} twice", what, index->ids_[node]);
    }
    index->nodes_.insert(node);
  }
  return index;
}

void HnswIndex::verify() const {
  const std::shared_lock hold(lock_);
  if (nodes_.size() != graph_->size() - graph_->n_removed()) {
    fail(ErrorCode::kCorruptData, "[verify index] expected {} ids, found {}", graph_->size() - graph_->n_removed(),
         nodes_.size());
  }
}

}  // namespace mneme::ann
