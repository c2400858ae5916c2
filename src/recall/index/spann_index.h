#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "recall/index/closure.h"
#include "recall/index/head_table.h"
#include "recall/index/pending_vectors.h"
#include "recall/index/posting_file.h"
#include "recall/index/reader_writer_lock.h"
#include "recall/index/slot_table.h"
#include "recall/index/update_log.h"
#include "recall/index/vector_codec.h"
#include "recall/index/vector_index.h"
#include "recall/index/vector_space.h"

namespace mneme::ann {

/// How an index is made; all but the last three are kept with it.
struct SpannOptions {
  VectorType values = VectorType::kI8;  ///< Of vectors in lists.
  size_t leaf = 8;                      ///< Vectors of one head on average when the index is built: 12.5 % heads.
  size_t list_limit = 0;                ///< Most vectors of a list; 0: three pages or 118 vectors, whichever is more.
  ClosureOptions closure;
  uint64_t seed = 1;

  size_t pending_bytes = size_t{32} << 20;  ///< Of new vectors in RAM before they are written to lists.
  bool sync =
      true;  ///< add() and remove() wait for the disk. Without it a power failure, not a kill, may lose the latest.
  OpenFile open_file;  ///< For tests.
};

/// SPANN (arXiv 2111.08566): heads in RAM, posting lists on disk. A search finds the nearest heads (head_table.h), reads
/// their lists at once and compares what is in them:
///
///   lists read = the parameters.lists nearest heads h with  d2(q, h) <= parameters.prune * d2(q, nearest head)
///
/// Every vector is in the list of its nearest head and of others that closure.h chooses. Heads are means of clusters
/// (balanced_clustering.h), way-points only; the official code takes real vectors and leaves them out of the lists.
///
/// Changes follow SPFresh (arXiv 2310.14282): a new vector waits in RAM, where searches see it, and in a log on disk.
/// When `pending_bytes` are full, the lists concerned are written anew: dead vectors leave, a list over the limit is
/// split and vectors of its neighbours that are nearer to a new head get a copy there, a list that lost nearly all is
/// dissolved. Pages are never overwritten while a checkpoint names them (posting_file.h), so that after a crash the
/// last checkpoint and the log make up every acknowledged change.
///
/// A folder holds it: `heads` (checkpoint), `postings`, `log.N`; docs/formats/vector-index.md. One process at a time.
class SpannIndex : public VectorIndex {
 public:
  /// Makes an empty index in a folder, which may exist but must hold no index.
  static std::unique_ptr<SpannIndex> create(Ledger& ledger, const std::string& folder, size_t dimension, Metric metric,
                                            const SpannOptions& options = {});
  /// Opens the index in a folder. Of `options` only the last three are used. Throws Error.
  static std::unique_ptr<SpannIndex> open(Ledger& ledger, const std::string& folder, const SpannOptions& options = {});
  ~SpannIndex() override;

  size_t size() const override;
  bool contains(uint64_t id) const override;
  IndexStats stats() const override;
  /// Writes what is pending to lists and makes a checkpoint. `path` is the index's own folder.
  void save(const std::string& path) override;
  /// Writes every list that holds a removed vector anew, with its head at the mean of what is left, then a checkpoint,
  /// and clears the pages that became free. Reads all lists.
  void purge() override;
  /// Reads every list: checksums, copies of each vector, no vector without a list, no page used twice.
  void verify() const override;

  const SpannOptions& options() const { return options_; }

 protected:
  void do_add(std::span<const uint64_t> ids, std::span<const float> rows) override;
  size_t do_remove(std::span<const uint64_t> ids) override;
  SearchResult do_search(std::span<const float> query, const SearchParameters& parameters) const override;

 private:
  struct Scratch;
  class ScratchLease;

  SpannIndex(Ledger& ledger, std::string folder, size_t dimension, Metric metric, float radius,
             const SpannOptions& options);

  // spann_build.cpp
  void build(std::span<const float> mapped, std::span<const uint32_t> slots);
  void build_from_pending();
  void bulk_add(std::span<const uint64_t> ids, std::span<const float> rows);

  // spann_update.cpp
  void insert(std::span<const uint64_t> ids, std::span<const float> rows, bool logged);
  size_t erase(std::span<const uint64_t> ids, bool logged);
  void flush();
  void rewrite(uint32_t head);
  void purge_list(uint32_t head);
  bool split(uint32_t head, const Posting& before, const Posting& now);
  void adopt_neighbours(std::span<const uint32_t> neighbours, uint32_t first_new);
  void dissolve(uint32_t head, const Posting& before, const Posting& now);
  void install(uint32_t head, const ListEntry& entry, std::span<const uint32_t> slots);
  void uninstall(uint32_t head, std::span<const uint32_t> slots);
  void rebuild_heads_if_worn();

  // spann_checkpoint.cpp
  void checkpoint();
  void write_checkpoint(uint64_t generation) const;
  void replay_logs(uint64_t generation);
  /// Removes checkpoints that a crash left half written.
  void remove_leftovers() const;
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  std::string log_path(uint64_t generation) const;
  std::unique_ptr<DurableFile> open_file(const std::string& path) const;
  void open_postings();

  Ledger* ledger_;
  std::string folder_;
  SpannOptions options_;
  VectorSpace space_;
  VectorCodec codec_;

  mutable std::mutex writer_;      ///< Held by whoever changes the index; taken before lock_.
  mutable ReaderWriterLock lock_;  ///< Guards what follows against searches; the writer reads without it.
  std::unique_ptr<SlotTable> slots_;
  std::unique_ptr<HeadTable> heads_;  ///< Mapped; nothing before the first build.
  GrowingArray<ListEntry> lists_;     ///< By head.
  PendingVectors pending_;
  std::unique_ptr<PostingFile> postings_;

  std::unique_ptr<UpdateLog> log_;
  uint64_t generation_ = 0;  ///< Of the log that is written to.
  bool changed_ = false;     ///< Since the last checkpoint.
  uint64_t splits_ = 0, merges_ = 0;

  mutable std::mutex scratch_mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratch_;
};

/// What the checkpoint file of an index holds: everything but the lists and the log.
struct SpannCheckpoint {
  uint64_t generation = 0;
  Metric metric{};
  size_t dimension = 0;
  float radius = 0;
  SpannOptions options;
  std::unique_ptr<SlotTable> slots;
  std::unique_ptr<HeadTable> heads;
  std::vector<ListEntry> lists;
};

/// Checks and opens the bytes of a checkpoint. Throws Error(kCorruptData or kUnsupported).
std::unique_ptr<SpannCheckpoint> parse_spann_checkpoint(Ledger& ledger, std::span<const std::byte> bytes,
                                                        std::string_view what);

}  // namespace mneme::ann
