#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::ann {

/// What "near" means. Every index gives distances, smaller is nearer:
enum class Metric : uint32_t {
  kL2 = 0,            ///< squared Euclidean distance
  kInnerProduct = 1,  ///< -(q . x)
  kCosine = 2,        ///< 1 - cos(q, x); rows are kept at length 1
};

/// "l2", "ip", "cosine".
std::string_view metric_name(Metric metric);
/// The metric of that name. Throws Error(kInvalidArgument).
Metric parse_metric(std::string_view name);

struct Hit {
  uint64_t id;
  float distance;
  friend bool operator==(const Hit&, const Hit&) = default;
};

/// How far a search looks. An index uses what applies to it.
struct SearchParameters {
  size_t k = 10;      ///< Hits wanted; fewer come back only when the index is smaller.
  size_t ef = 64;     ///< HNSW: candidates kept while walking the graph, at least k.
  size_t lists = 32;  ///< SPANN: most posting lists read.
  /// SPANN: lists whose head is farther than this times the nearest head's squared distance are not read.
  float prune = 2.0f;
};

/// What one search cost.
struct SearchCost {
  uint64_t vectors_compared = 0;  ///< Distances computed to stored vectors, those of a graph walk included.
  uint64_t heads_visited = 0;     ///< Of them, distances to heads (SPANN).
  uint64_t lists_read = 0;        ///< Posting lists (SPANN).
  uint64_t bytes_read = 0;        ///< Bytes asked from the disk.
  SearchCost& operator+=(const SearchCost& other);
};

struct SearchResult {
  std::vector<Hit> hits;  ///< Nearest first; equal distances in order of ids.
  SearchCost cost;
};

struct IndexStats {
  std::string kind;
  uint64_t vectors = 0;
  uint64_t ram_bytes = 0;   ///< As counted in the ledger.
  uint64_t disk_bytes = 0;  ///< Of the posting lists (SPANN).
  uint64_t heads = 0, lists_over_limit = 0, largest_list = 0, pending_vectors = 0, dead_vectors = 0;  ///< SPANN
  double copies = 0;                ///< Mean copies of a vector in the lists (SPANN).
  uint64_t splits = 0, merges = 0;  ///< Since it was opened (SPANN).
};

/// Nearest neighbours among vectors of one dimension, each with a 64-bit id. All memory is counted in a ledger under
/// Tag::kIndex. Searches may run beside each other and beside one writer.
class VectorIndex {
 public:
  VectorIndex(size_t dimension, Metric metric);
  VectorIndex(const VectorIndex&) = delete;
  VectorIndex& operator=(const VectorIndex&) = delete;
  virtual ~VectorIndex() = default;

  size_t dimension() const { return dimension_; }
  Metric metric() const { return metric_; }

  /// Adds rows [ids.size(), dimension]; a row whose id is present replaces the old one. Throws Error(kInvalidArgument)
  /// for a wrong size, an id that appears twice, a value that is not finite or (cosine) a row of zeros; then nothing
  /// was added.
  void add(std::span<const uint64_t> ids, std::span<const float> rows);
  /// Removes the vectors with these ids and returns how many there were.
  size_t remove(std::span<const uint64_t> ids);
  /// The vectors nearest to query [dimension]. Throws Error(kInvalidArgument) as add() does.
  SearchResult search(std::span<const float> query, const SearchParameters& parameters) const;

  /// Number of vectors.
  virtual size_t size() const = 0;
  virtual bool contains(uint64_t id) const = 0;
  /// Whether the vector under `id` is `row` [dimension]. SPANN, which cannot find a vector by its id, says whether it is
  /// among the nearest to the row, and refuses inner products, where these need not be near. Throws Error(kInvalidArgument)
  /// as add() does.
  bool holds(uint64_t id, std::span<const float> row) const;
  /// Takes the last bytes of removed vectors out of what the index keeps, on disk too. Indexes in RAM keep none after
  /// remove(). Throws Error(kIo, kOutOfBudget).
  virtual void purge() {}
  virtual IndexStats stats() const = 0;
  /// Makes the state durable at `path`. An index that lives on disk (SPANN) accepts only its own folder, and what add()
  /// and remove() did is durable before.
  virtual void save(const std::string& path) = 0;
  /// Checks the whole index, what lies on disk included. Throws Error(kCorruptData) that names the first fault.
  virtual void verify() const = 0;

 protected:
  virtual void do_add(std::span<const uint64_t> ids, std::span<const float> rows) = 0;
  virtual size_t do_remove(std::span<const uint64_t> ids) = 0;
  virtual SearchResult do_search(std::span<const float> query, const SearchParameters& parameters) const = 0;
  /// An index that cannot tell from the id looks for the row, as here.
  virtual bool do_holds(uint64_t id, std::span<const float> row) const;
  /// Whether `kept` is what an index of f32 keeps of `row`.
  bool keeps_as(std::span<const float> row, std::span<const float> kept) const;

 private:
  void check_row(std::span<const float> row, std::string_view operation, uint64_t id) const;

  size_t dimension_;
  Metric metric_;
};

/// Largest dimension an index takes.
inline constexpr size_t kMaxDimension = 8192;

}  // namespace mneme::ann
