#include "recall/index/hnsw_graph.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include <hnswlib/hnswlib.h>
#pragma GCC diagnostic pop

#include "base/half.h"
#include "base/parallel.h"
#include "kernels/vector_distance.h"
#include "kernels/vector_ops.h"

namespace mneme::ann {
namespace {

constexpr int kMostLevels = 64;

/// Distances computed on this thread; hnswlib's own counter is shared between threads.
thread_local uint64_t t_compared = 0;

size_t row_bytes(const GraphOptions& options) {
  return options.dimension * (options.distance == GraphDistance::kL2F16 ? 2 : 4);
}

template <GraphDistance kind>
float distance(const void* a, const void* b, const void* dimension) {
  const size_t n = *static_cast<const size_t*>(dimension);
  ++t_compared;
  if constexpr (kind == GraphDistance::kL2F16) {
    return kernels::distance_ops().l2_f16_f16(a, b, n);
  } else if constexpr (kind == GraphDistance::kL2F32) {
    return kernels::distance_ops().l2_f32(static_cast<const float*>(a), static_cast<const float*>(b), n);
  } else {
    return -kernels::vector_ops().dot(static_cast<const float*>(a), static_cast<const float*>(b), n);
  }
}

class Space : public hnswlib::SpaceInterface<float> {
 public:
  explicit Space(const GraphOptions& options) : options_(options) {}
  size_t get_data_size() override { return row_bytes(options_); }
  hnswlib::DISTFUNC<float> get_dist_func() override {
    switch (options_.distance) {
      case GraphDistance::kL2F16:
        return distance<GraphDistance::kL2F16>;
      case GraphDistance::kNegativeDotF32:
        return distance<GraphDistance::kNegativeDotF32>;
      case GraphDistance::kL2F32:
        break;
    }
    return distance<GraphDistance::kL2F32>;
  }
  void* get_dist_func_param() override { return &options_.dimension; }

 private:
  GraphOptions options_;
};

}  // namespace

struct HnswGraph::Impl {
  Impl(const GraphOptions& options, size_t capacity)
      : space(options), graph(&space, capacity, options.m, options.ef_construction) {}
  Space space;
  hnswlib::HierarchicalNSW<float> graph;
  uint64_t next_label = 0;  ///< hnswlib wants labels; nodes are numbers here, so labels are forgotten after adding.
};

namespace {

/// A row as the graph stores it.
std::span<const std::byte> stored_row(const GraphOptions& options, std::span<const float> row,
                                      std::vector<uint16_t>& halves) {
  if (options.distance != GraphDistance::kL2F16) return std::as_bytes(row);
  halves.resize(row.size());
  kernels::vector_ops().f32_to_f16(row.data(), row.size(), halves.data());
  return std::as_bytes(std::span<const uint16_t>(halves));
}

/// What hnswlib allocates for `capacity` nodes: rows with links and label, pointers, locks and levels, about capacity /
/// m nodes with links above, and a list of visited nodes for each thread.
uint64_t graph_bytes(const GraphOptions& options, size_t capacity) {
  const uint64_t lowest = (2 * options.m + 1) * 4 + row_bytes(options) + 8;
  const uint64_t fixed = sizeof(void*) + sizeof(std::mutex) + sizeof(int);
  const uint64_t upper = ((options.m + 1) * 4 + 16) / (options.m - 1) + 1;
  return capacity * (lowest + fixed + upper + 2 * static_cast<uint64_t>(n_threads())) + 65536 * sizeof(std::mutex);
}

}  // namespace

HnswGraph::HnswGraph(Ledger& ledger, const GraphOptions& options, size_t capacity) : options_(options) {
  if (options.m < 2 || options.m > 256 || options.dimension == 0 || options.dimension > kMaxDimension + 1) {
    fail(ErrorCode::kInvalidArgument, "[graph] expected 2 to 256 links, found {}", options.m);
  }
  capacity = std::max<size_t>(capacity, 64);
  reservation_ = ledger.reserve(Tag::kIndex, graph_bytes(options, capacity), "HNSW graph");
  impl_ = std::make_unique<Impl>(options, capacity);
}

HnswGraph::~HnswGraph() = default;

void HnswGraph::reserve(size_t capacity) {
  auto& graph = impl_->graph;
  if (capacity <= graph.max_elements_) return;
  const size_t wanted = std::max(capacity, graph.max_elements_ + graph.max_elements_ / 8);
  reservation_.resize(graph_bytes(options_, wanted));
  graph.resizeIndex(wanted);
}

std::vector<uint32_t> HnswGraph::add(std::span<const float> rows) {
  const size_t n = rows.size() / options_.dimension;
  std::vector<uint32_t> nodes(n);
  if (n == 0) return nodes;
  auto& graph = impl_->graph;
  reserve(graph.cur_element_count + n);
  std::atomic<bool> failed{false};
  const auto add_one = [&](size_t i) {
    thread_local std::vector<uint16_t> halves;
    const auto row = stored_row(options_, rows.subspan(i * options_.dimension, options_.dimension), halves);
    try {
      nodes[i] = graph.addPoint(row.data(), impl_->next_label + i, -1);
    } catch (const std::runtime_error&) {  // links that only a forged file has, or no memory
      failed = true;
    }
  };
  add_one(0);
  constexpr size_t kPiece = 64;
  parallel_dynamic((n - 1 + kPiece - 1) / kPiece, [&](size_t piece) {
    const size_t end = std::min(n, 1 + (piece + 1) * kPiece);
    for (size_t i = 1 + piece * kPiece; i < end; ++i) add_one(i);
  });
  impl_->next_label += n;
  graph.label_lookup_ = {};
  if (failed) fail(ErrorCode::kCorruptData, "[add] expected a sound graph, found links that contradict each other");
  return nodes;
}

void HnswGraph::remove(uint32_t node) {
  if (!removed(node)) impl_->graph.markDeletedInternal(node);
}

void HnswGraph::restore(uint32_t node) {
  if (removed(node)) impl_->graph.unmarkDeletedInternal(node);
}

bool HnswGraph::removed(uint32_t node) const {
  return impl_->graph.isMarkedDeleted(node);
}

uint64_t HnswGraph::search(std::span<const float> query, size_t k, size_t ef, std::vector<GraphHit>& hits) const {
  const auto& graph = impl_->graph;
  hits.clear();
  if (graph.cur_element_count == graph.num_deleted_) return 0;
  thread_local std::vector<uint16_t> halves;
  const void* stored = stored_row(options_, query, halves).data();
  const uint64_t before = t_compared;
  // Down the upper levels to the node nearest to the query, then the walk of the lowest level.
  hnswlib::tableint current = graph.enterpoint_node_;
  float best = graph.fstdistfunc_(stored, graph.getDataByInternalId(current), graph.dist_func_param_);
  for (int level = graph.maxlevel_; level > 0; --level) {
    for (bool changed = true; changed;) {
      changed = false;
      const auto* links = graph.get_linklist(current, level);
      const size_t n = graph.getListCount(const_cast<hnswlib::linklistsizeint*>(links));
      for (size_t i = 1; i <= n; ++i) {
        const hnswlib::tableint node = links[i];
        const float d = graph.fstdistfunc_(stored, graph.getDataByInternalId(node), graph.dist_func_param_);
        if (d < best) {
          best = d;
          current = node;
          changed = true;
        }
      }
    }
  }
  const size_t wide = std::max(ef, k);
  auto found = graph.num_deleted_ > 0 ? graph.searchBaseLayerST<true>(current, stored, wide)
                                      : graph.searchBaseLayerST<false>(current, stored, wide);
  // Removed nodes may cut the others off from the entry.
  for (uint32_t node = 0; found.empty() && node < graph.cur_element_count; ++node) {
    if (!removed(node))
      found.emplace(graph.fstdistfunc_(stored, graph.getDataByInternalId(node), graph.dist_func_param_), node);
  }
  while (found.size() > k) found.pop();
  hits.resize(found.size());
  for (size_t i = hits.size(); i-- > 0; found.pop()) hits[i] = {found.top().first, found.top().second};
  return t_compared - before;
}

void HnswGraph::row(uint32_t node, std::span<float> out) const {
  const char* stored = impl_->graph.getDataByInternalId(node);
  if (options_.distance == GraphDistance::kL2F16) {
    kernels::vector_ops().f16_to_f32(stored, options_.dimension, out.data());
  } else {
    std::memcpy(out.data(), stored, options_.dimension * sizeof(float));
  }
}

void HnswGraph::set_row(uint32_t node, std::span<const float> row) {
  std::vector<uint16_t> halves;
  const auto stored = stored_row(options_, row, halves);
  std::memcpy(impl_->graph.getDataByInternalId(node), stored.data(), stored.size());
}

void HnswGraph::blot_out(uint32_t node) {
  constexpr size_t kNearest = 4;
  std::vector<float> place(options_.dimension), other(options_.dimension), sum(options_.dimension);
  std::vector<GraphHit> nearest;
  row(node, place);
  search(place, kNearest, 32, nearest);
  bool differ = false;
  for (size_t i = 0; i < nearest.size(); ++i) {
    row(nearest[i].node, other);
    if (i == 0) place = other;
    differ |= other != place;
    for (size_t x = 0; x < sum.size(); ++x) sum[x] += other[x] / static_cast<float>(nearest.size());
  }
  if (!differ) std::fill(sum.begin(), sum.end(), 0.0f);
  set_row(node, sum);
}

float HnswGraph::distance(uint32_t a, uint32_t b) const {
  const auto& graph = impl_->graph;
  return graph.fstdistfunc_(graph.getDataByInternalId(a), graph.getDataByInternalId(b), graph.dist_func_param_);
}

size_t HnswGraph::size() const {
  return impl_->graph.cur_element_count;
}

size_t HnswGraph::n_removed() const {
  return impl_->graph.num_deleted_;
}

namespace {

struct GraphHead {
  uint64_t n_nodes;
  uint32_t dimension, distance, m, ef_construction, entry;
  int32_t top_level;
};

}  // namespace

void HnswGraph::write(IndexFileWriter& file) const {
  const auto& graph = impl_->graph;
  const size_t n = graph.cur_element_count;
  file.put(GraphHead{n, static_cast<uint32_t>(options_.dimension), static_cast<uint32_t>(options_.distance),
                     static_cast<uint32_t>(options_.m), static_cast<uint32_t>(options_.ef_construction),
                     graph.enterpoint_node_, graph.maxlevel_});
  std::vector<uint8_t> levels(n);
  for (size_t i = 0; i < n; ++i) levels[i] = static_cast<uint8_t>(graph.element_levels_[i]);
  file.put_all(std::span<const uint8_t>(levels));
  file.write(std::as_bytes(std::span(graph.data_level0_memory_, n * graph.size_data_per_element_)));
  for (size_t i = 0; i < n; ++i) {
    if (levels[i] > 0)
      file.write(std::as_bytes(std::span(graph.linkLists_[i], levels[i] * graph.size_links_per_element_)));
  }
}

std::unique_ptr<HnswGraph> HnswGraph::read(Ledger& ledger, ByteReader& reader) {
  const auto head = reader.get<GraphHead>();
  const auto corrupt = [&](std::string_view found) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected a sound graph, found {}", reader.what(), found);
  };
  if (head.distance > 2 || head.m < 2 || head.m > 256 || head.dimension == 0 || head.dimension > kMaxDimension + 1 ||
      head.ef_construction == 0 || head.ef_construction > 65536) {
    corrupt("parameters out of range");
  }
  const GraphOptions options{head.dimension, static_cast<GraphDistance>(head.distance), head.m, head.ef_construction};
  reader.expect_left(head.n_nodes, 1 + row_bytes(options) + (2 * options.m + 1) * 4 + 8);
  if (head.n_nodes > 0x7FFFFFFF) corrupt("too many nodes");
  const size_t n = head.n_nodes;
  auto result = std::make_unique<HnswGraph>(ledger, options, n);
  if (n == 0) return result;
  auto& graph = result->impl_->graph;
  const auto levels = reader.take(n);
  reader.get_all(std::span(graph.data_level0_memory_, n * graph.size_data_per_element_));
  if (head.entry >= n || head.top_level < 0 || head.top_level >= kMostLevels ||
      static_cast<int>(levels[head.entry]) != head.top_level) {
    corrupt("no entry");
  }
  const auto check_links = [&](const hnswlib::linklistsizeint* links, size_t most, int level) {
    const size_t count = graph.getListCount(const_cast<hnswlib::linklistsizeint*>(links));
    if (count > most) corrupt("too many links");
    for (size_t i = 1; i <= count; ++i) {
      if (links[i] >= n || static_cast<int>(levels[links[i]]) < level) corrupt("a link that leads nowhere");
    }
  };
  std::vector<float> row(options.dimension);
  for (uint32_t i = 0; i < n; ++i) {
    const int level = static_cast<int>(levels[i]);
    if (level > head.top_level) corrupt("a node above the entry");
    check_links(graph.get_linklist0(i), graph.maxM0_, 0);
    result->row(i, row);
    if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }))
      corrupt("a row that is not finite");
    if (level > 0) {
      const size_t bytes = static_cast<size_t>(level) * graph.size_links_per_element_;
      const auto links = reader.take(bytes);
      graph.linkLists_[i] = static_cast<char*>(std::malloc(bytes));
      if (graph.linkLists_[i] == nullptr) fail(ErrorCode::kOutOfBudget, "[read index] no memory for {} bytes", bytes);
      std::memcpy(graph.linkLists_[i], links.data(), bytes);
    }
    graph.element_levels_[i] = level;
    graph.cur_element_count = i + 1;  // what the destructor frees
    for (int l = 1; l <= level; ++l) check_links(graph.get_linklist(i, l), graph.maxM_, l);
    if (graph.isMarkedDeleted(i)) ++graph.num_deleted_;
  }
  graph.enterpoint_node_ = head.entry;
  graph.maxlevel_ = head.top_level;
  result->impl_->next_label = n;
  return result;
}

}  // namespace mneme::ann
