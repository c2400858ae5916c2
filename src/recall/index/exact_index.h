#pragma once

#include <memory>
#include <string>

#include "recall/index/growing_array.h"
#include "recall/index/id_map.h"
#include "recall/index/reader_writer_lock.h"
#include "recall/index/vector_index.h"

namespace mneme::ann {

/// Compares the query with every vector: always right, and the fastest below some ten thousand vectors. Rows in f32 in
/// RAM, dimension * 4 + 13 bytes a vector.
class ExactIndex : public VectorIndex {
 public:
  ExactIndex(Ledger& ledger, size_t dimension, Metric metric);
  /// What save() wrote. Throws Error.
  static std::unique_ptr<ExactIndex> load(Ledger& ledger, const std::string& path);
  /// The same from bytes; `what` names them.
  static std::unique_ptr<ExactIndex> parse(Ledger& ledger, std::span<const std::byte> bytes, std::string_view what);

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
  mutable ReaderWriterLock lock_;
  GrowingArray<uint64_t> ids_;
  GrowingArray<float> rows_;  ///< [size, dimension]; of length 1 for cosine.
  IdMap slots_;
};

}  // namespace mneme::ann
