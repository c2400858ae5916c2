#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "recall/index/byte_reader.h"
#include "recall/index/growing_array.h"
#include "recall/index/index_file.h"

namespace mneme::ann {

struct HeadHit {
  float distance;  ///< Squared Euclidean.
  uint32_t node;
};

/// The heads of a SPANN index in RAM: rows in f16, numbered in order of their coming, and in two levels to search them.
/// About 2 sqrt(n) cells hold the heads by their nearest cell centre; a search compares the query with all centres and then
/// with the heads of the nearest cells:
///
///   work(n) = 2 sqrt(n) + 8 * sqrt(n) / 2   distances for the nearest few,
///
/// 2100 of 125000. The paper has a graph of relative neighbourhoods here, with trees for entry points. A graph alone loses
/// nearest heads of clumped vectors: islands that no link leads to.
///
/// Cells are made anew when there are twice as many heads. search() may run on many threads at once, not beside the others.
class HeadTable {
 public:
  HeadTable(Ledger& ledger, size_t dimension);

  /// Adds rows [n, dimension] as nodes size(), size() + 1, ... Throws Error(kOutOfBudget) before anything changes.
  void add(std::span<const float> rows);
  void remove(uint32_t node);
  /// Undoes remove().
  void restore(uint32_t node);
  bool removed(uint32_t node) const { return cell_[node] == kRemoved; }
  /// Moves a node that is not removed to another place.
  void set_row(uint32_t node, std::span<const float> row);
  /// Puts a removed node at zero, so that nothing of its row remains.
  void blot_out(uint32_t node);
  /// Makes the cells from what the heads are now; a centre may have been one head alone.
  void renew_cells();

  /// The k nearest heads that are not removed, nearest first, as far as the nearest cells hold them. Returns the distances
  /// computed.
  uint64_t search(std::span<const float> query, size_t k, std::vector<HeadHit>& hits) const;
  /// The row of a node as f32 [dimension].
  void row(uint32_t node, std::span<float> out) const;
  float distance(uint32_t a, uint32_t b) const;

  size_t dimension() const { return dimension_; }
  size_t size() const { return cell_.size(); }  ///< Removed ones included.
  size_t n_removed() const { return size() - n_live_; }
  uint64_t bytes() const { return rows_.bytes() + cell_.bytes() + reservation_.bytes(); }
  /// What bytes() is for n heads, about.
  static uint64_t bytes_of(uint64_t n, size_t dimension);

  void write(IndexFileWriter& file) const;
  /// What write() wrote. Throws Error(kCorruptData).
  static std::unique_ptr<HeadTable> read(Ledger& ledger, ByteReader& reader);

 private:
  static constexpr uint32_t kRemoved = 0xFFFFFFFFu;

  const uint16_t* stored(uint32_t node) const { return rows_.data() + size_t{node} * dimension_; }
  size_t n_cells() const { return centres_.size() / dimension_; }
  uint32_t nearest_cell(const float* row) const;
  void enter(uint32_t node, uint32_t cell);
  void leave(uint32_t node);
  void make_cells();
  /// Fills members_ from cell_.
  void list_members();

  size_t dimension_;
  GrowingArray<uint16_t> rows_;  ///< [size, dimension] f16
  GrowingArray<uint32_t> cell_;  ///< By node; 0 for all while there are no cells.
  std::vector<float> centres_;   ///< [n_cells, dimension]
  std::vector<std::vector<uint32_t>> members_;
  Reservation reservation_;      ///< Of the last two.
  size_t n_live_ = 0, grouped_ = 0;  ///< grouped_: live heads when the cells were made.
};

}  // namespace mneme::ann
