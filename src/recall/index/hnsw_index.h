#pragma once

#include <memory>
#include <string>

#include "recall/index/growing_array.h"
#include "recall/index/hnsw_graph.h"
#include "recall/index/id_map.h"
#include "recall/index/reader_writer_lock.h"
#include "recall/index/vector_index.h"

namespace mneme::ann {

/// A graph over all vectors in RAM (arXiv 1603.09320): the fastest search where memory for everything is there, about
/// dimension * 4 + 250 bytes a vector. Removed vectors leave way-points (HnswGraph::blot_out()) until these are a third of
/// the graph; then the next change builds it anew.
class HnswIndex : public VectorIndex {
 public:
  /// `capacity`: vectors to make room for at once.
  HnswIndex(Ledger& ledger, size_t dimension, Metric metric, size_t m = 16, size_t ef_construction = 200,
            size_t capacity = 0);
  /// What save() wrote. Throws Error.
  static std::unique_ptr<HnswIndex> load(Ledger& ledger, const std::string& path);
  /// The same from bytes; `what` names them.
  static std::unique_ptr<HnswIndex> parse(Ledger& ledger, std::span<const std::byte> bytes, std::string_view what);

  size_t size() const override;
  bool contains(uint64_t id) const override;
  IndexStats stats() const override;
  void save(const std::string& path) override;
  void verify() const override;

 protected:
  void do_add(std::span<const uint64_t> ids, std::span<const float> rows) override;
  size_t do_remove(std::span<const uint64_t> ids) override;
  SearchResult do_search(std::span<const float> query, const SearchParameters& parameters) const override;
  bool do_holds(uint64_t id, std::span<const float> row) const override;

 private:
  void rebuild_if_worn();

  Ledger* ledger_;
  mutable ReaderWriterLock lock_;
  std::unique_ptr<HnswGraph> graph_;
  GrowingArray<uint64_t> ids_;  ///< By node; of removed nodes the id they had.
  IdMap nodes_;
};

}  // namespace mneme::ann
