#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "budget/ledger.h"
#include "recall/index/byte_reader.h"
#include "recall/index/index_file.h"

namespace mneme::ann {

/// How a graph compares and stores rows.
enum class GraphDistance : uint32_t {
  kL2F32 = 0,           ///< squared Euclidean distance, rows in f32
  kL2F16 = 1,           ///< the same, rows in f16
  kNegativeDotF32 = 2,  ///< -(a . b), rows in f32
};

struct GraphOptions {
  size_t dimension = 0;
  GraphDistance distance = GraphDistance::kL2F32;
  size_t m = 16;                 ///< Links of a node on upper levels; twice as many on the lowest.
  size_t ef_construction = 200;  ///< Candidates kept while a node is linked.
};

struct GraphHit {
  float distance;
  uint32_t node;
};

/// A hierarchical navigable small-world graph (arXiv 1603.09320) over rows, nodes numbered from 0 in order of their
/// coming; a thin cover of hnswlib that counts its memory and checks what it reads. Removed nodes stay as way-points.
///
/// search() may run on many threads at once, but not beside the other functions.
class HnswGraph {
 public:
  HnswGraph(Ledger& ledger, const GraphOptions& options, size_t capacity);
  ~HnswGraph();

  /// Adds rows [n, dimension] on all threads and returns their nodes; which row becomes which node depends on the
  /// threads. Grows as needed. Throws Error(kOutOfBudget) before anything changes.
  std::vector<uint32_t> add(std::span<const float> rows);
  void remove(uint32_t node);
  /// Undoes remove().
  void restore(uint32_t node);
  bool removed(uint32_t node) const;
  /// The k nearest nodes that are not removed, nearest first, from max(ef, k) candidates. Returns the distances
  /// computed.
  uint64_t search(std::span<const float> query, size_t k, size_t ef, std::vector<GraphHit>& hits) const;
  /// The row of a node as f32 [dimension].
  void row(uint32_t node, std::span<float> out) const;

  /// Moves a node to another place; its links stay.
  void set_row(uint32_t node, std::span<const float> row);
  /// Puts a removed node at the mean of the nearest that are left: nothing of its row remains, and as a way-point it
  /// leads to the same neighbourhood. At zero when these are not two different ones, since the copy of a single row
  /// would outlive it.
  void blot_out(uint32_t node);

  /// Distance between two nodes.
  float distance(uint32_t a, uint32_t b) const;

  size_t size() const;  ///< Nodes, removed ones included.
  size_t n_removed() const;
  uint64_t bytes() const { return reservation_.bytes(); }
  const GraphOptions& options() const { return options_; }

  void write(IndexFileWriter& file) const;
  /// What write() wrote. Throws Error(kCorruptData) unless every link leads to a node.
  static std::unique_ptr<HnswGraph> read(Ledger& ledger, ByteReader& reader);

 private:
  struct Impl;
  void reserve(size_t capacity);

  GraphOptions options_;
  Reservation reservation_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme::ann
