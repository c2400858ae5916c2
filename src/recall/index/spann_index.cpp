#include "recall/index/spann_index.h"

#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <shared_mutex>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "context/async_reader.h"
#include "recall/index/top_k.h"

namespace mneme::ann {
namespace {

/// Slots that a search has met: open addressing, emptied for each search.
class SeenSlots {
 public:
  void prepare(size_t most) {
    size_t capacity = 64;
    while (capacity < 2 * most) capacity *= 2;
    table_.assign(capacity, kNone);
  }
  /// Whether the slot is new.
  bool insert(uint32_t slot) {
    const size_t mask = table_.size() - 1;
    for (size_t at = slot * 0x9E3779B1u >> 7 & mask;; at = (at + 1) & mask) {
      if (table_[at] == slot) return false;
      if (table_[at] == kNone) {
        table_[at] = slot;
        return true;
      }
    }
  }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFFu;
  std::vector<uint32_t> table_;
};

size_t default_list_limit(size_t element_bytes) {
  const size_t stored = element_bytes + 4;
  return std::max<size_t>(3 * kPageBytes / stored, 118);
}

void check_options(const SpannOptions& o) {
  if (o.leaf < 2 || o.leaf > 4096 || o.closure.copies == 0 || o.closure.copies > 32 || o.closure.candidates == 0 ||
      o.closure.candidates > 4096 || !(o.closure.reach >= 1) || !(o.closure.rng_factor > 0) || o.list_limit < 8 ||
      o.list_limit > 1'000'000) {
    fail(ErrorCode::kInvalidArgument,
         "[spann] expected leaf 2 to 4096, copies 1 to 32, candidates 1 to 4096, reach >= 1, list limit 8 to 1000000");
  }
}

}  // namespace

/// What one search needs: buffers for lists, a ring. Kept for the next search.
struct SpannIndex::Scratch {
  AsyncReader reader;
  Buffer pages;
  std::vector<HeadHit> heads;
  std::vector<ReadRequest> requests;
  std::vector<ListEntry> entries;
  SeenSlots seen;
  std::vector<float> query;
};

/// A scratch for the length of a search.
class SpannIndex::ScratchLease {
 public:
  explicit ScratchLease(const SpannIndex& index) : index_(index) {
    const std::lock_guard hold(index.scratch_mutex_);
    if (index.scratch_.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(index.scratch_.back());
      index.scratch_.pop_back();
    }
  }
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;
  ~ScratchLease() {
    const std::lock_guard hold(index_.scratch_mutex_);
    index_.scratch_.push_back(std::move(scratch_));
  }
  Scratch& operator*() const { return *scratch_; }

 private:
  const SpannIndex& index_;
  std::unique_ptr<Scratch> scratch_;
};

SpannIndex::SpannIndex(Ledger& ledger, std::string folder, size_t dimension, Metric metric, float radius,
                       const SpannOptions& options)
    : VectorIndex(dimension, metric),
      ledger_(&ledger),
      folder_(std::move(folder)),
      options_(options),
      space_(metric, dimension, radius),
      codec_(options.values, space_.dimension()),
      slots_(std::make_unique<SlotTable>(ledger)),
      lists_(ledger, Tag::kIndex, "table of lists"),
      pending_(ledger, codec_.bytes()) {
  if (options_.list_limit == 0) options_.list_limit = default_list_limit(codec_.bytes());
  check_options(options_);
}

SpannIndex::~SpannIndex() = default;

std::unique_ptr<DurableFile> SpannIndex::open_file(const std::string& path) const {
  return options_.open_file ? options_.open_file(path) : std::make_unique<DurableFile>(path);
}

void SpannIndex::open_postings() {
  auto lists = open_file(file("postings"));
  if (::flock(lists->descriptor(), LOCK_EX | LOCK_NB) != 0) {
    fail(ErrorCode::kIo, "[open index] {}: expected to be alone, found another process that has it open", folder_);
  }
  postings_ = std::make_unique<PostingFile>(*ledger_, std::move(lists), codec_.bytes());
}

std::unique_ptr<SpannIndex> SpannIndex::create(Ledger& ledger, const std::string& folder, size_t dimension,
                                               Metric metric, const SpannOptions& options) {
  std::unique_ptr<SpannIndex> index(new SpannIndex(ledger, folder, dimension, metric, 0, options));
  if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) fail_errno("create", folder);
  struct stat status {};
  if (::stat(index->file("heads").c_str(), &status) == 0) {
    fail(ErrorCode::kInvalidArgument, "[create index] {}: expected no index, found one", folder);
  }
  index->open_postings();
  index->postings_->adopt({});
  index->log_ = std::make_unique<UpdateLog>(index->open_file(index->log_path(0)), 0, dimension);
  index->write_checkpoint(0);
  sync_folder(folder);
  return index;
}

std::unique_ptr<SpannIndex> SpannIndex::open(Ledger& ledger, const std::string& folder, const SpannOptions& options) {
  std::unique_ptr<SpannCheckpoint> found;
  {
    const MappedFile heads(folder + "/heads");
    found = parse_spann_checkpoint(ledger, heads.bytes(), heads.path());
  }
  SpannOptions kept = found->options;
  kept.pending_bytes = options.pending_bytes;
  kept.sync = options.sync;
  kept.open_file = options.open_file;
  std::unique_ptr<SpannIndex> index(
      new SpannIndex(ledger, folder, found->dimension, found->metric, found->radius, kept));
  index->slots_ = std::move(found->slots);
  index->heads_ = std::move(found->heads);
  index->lists_.resize(found->lists.size());
  std::copy(found->lists.begin(), found->lists.end(), index->lists_.begin());
  index->open_postings();
  index->postings_->adopt(found->lists);
  index->remove_leftovers();
  index->replay_logs(found->generation);
  return index;
}

size_t SpannIndex::size() const {
  const std::shared_lock hold(lock_);
  return slots_->n_alive();
}

bool SpannIndex::contains(uint64_t id) const {
  const std::shared_lock hold(lock_);
  return slots_->find(id).has_value();
}

IndexStats SpannIndex::stats() const {
  const std::lock_guard alone(writer_);
  IndexStats stats;
  stats.kind = "spann";
  stats.vectors = slots_->n_alive();
  stats.pending_vectors = pending_.size();
  stats.dead_vectors = slots_->n_dead_in_lists();
  stats.ram_bytes =
      slots_->bytes() + lists_.bytes() + pending_.bytes() + postings_->bytes() + (heads_ ? heads_->bytes() : 0);
  {
    const std::lock_guard hold(scratch_mutex_);
    for (const auto& scratch : scratch_) stats.ram_bytes += Buffer::reserved_bytes(scratch->pages.size());
  }
  stats.disk_bytes = postings_->n_pages() * kPageBytes;
  stats.heads = heads_ ? heads_->size() - heads_->n_removed() : 0;
  uint64_t entries = 0;
  for (const ListEntry& list : lists_) {
    entries += list.count;
    stats.largest_list = std::max<uint64_t>(stats.largest_list, list.count);
    stats.lists_over_limit += list.count > options_.list_limit ? 1 : 0;
  }
  const uint64_t in_lists = stats.vectors + stats.dead_vectors - std::min(stats.vectors, stats.pending_vectors);
  stats.copies = in_lists > 0 ? static_cast<double>(entries) / static_cast<double>(in_lists) : 0;
  stats.splits = splits_;
  stats.merges = merges_;
  return stats;
}

SearchResult SpannIndex::do_search(std::span<const float> query, const SearchParameters& parameters) const {
  const std::shared_lock hold(lock_);
  const ScratchLease lease(*this);
  Scratch& scratch = *lease;
  scratch.query.resize(space_.dimension());
  space_.map_query(query, scratch.query);
  const float* q = scratch.query.data();
  SearchResult result;
  SearchCost& cost = result.cost;
  TopK best(parameters.k);
  const auto offer = [&](uint32_t slot, const std::byte* element) {
    if (!slots_->alive(slot) || !scratch.seen.insert(slot)) return;
    const float distance = codec_.distance(q, element);
    ++cost.vectors_compared;
    if (best.may_enter(distance)) best.offer({slots_->id(slot), distance});
  };

  if (!heads_) {  // too few vectors for heads yet
    scratch.seen.prepare(pending_.size());
    for (uint32_t number = 0; number < pending_.size(); ++number)
      offer(pending_.slot(number), pending_.element(number));
  } else {
    std::vector<HeadHit>& heads = scratch.heads;
    cost.heads_visited =
        heads_->search(scratch.query, parameters.lists, heads);
    cost.vectors_compared = cost.heads_visited;
    while (!heads.empty() && heads.back().distance > parameters.prune * heads.front().distance) heads.pop_back();

    scratch.entries.clear();
    uint64_t pages = 0, elements = 0;
    for (const HeadHit& head : heads) {
      const ListEntry& list = lists_[head.node];
      elements += list.count + pending_.of(head.node).size();
      if (list.pages == 0) continue;
      scratch.entries.push_back(list);
      pages += list.pages;
    }
    if (pages * kPageBytes > scratch.pages.size()) {
      scratch.pages = Buffer();
      scratch.pages = Buffer(*ledger_, Tag::kScratch, pages * kPageBytes * 5 / 4, "lists being read");
    }
    scratch.requests.clear();
    std::byte* target = scratch.pages.data();
    for (const ListEntry& list : scratch.entries) {
      const auto bytes = static_cast<uint32_t>(list.pages * kPageBytes);
      scratch.requests.push_back({uint64_t{list.page} * kPageBytes, bytes, target});
      target += bytes;
    }
    scratch.seen.prepare(elements);
    for (const HeadHit& head : heads) {
      for (uint32_t number : pending_.of(head.node)) offer(pending_.slot(number), pending_.element(number));
    }
    const size_t element_bytes = codec_.bytes(), n_slots = slots_->size();
    scratch.reader.read(
        postings_->descriptor(), scratch.requests,
        [&](size_t i) {
          const ReadRequest& request = scratch.requests[i];
          const ListEntry& list = scratch.entries[i];
          const PostingView view = parse_posting({request.target, request.bytes}, list.name, list.count, element_bytes);
          for (size_t e = 0; e < view.slots.size(); ++e) {
            if (view.slots[e] >= n_slots)
              fail(ErrorCode::kCorruptData, "[search] expected a known slot in list {}", list.name);
            offer(view.slots[e], view.elements.data() + e * element_bytes);
          }
        },
        postings_->path().c_str());
    cost.lists_read = scratch.requests.size();
    cost.bytes_read = pages * kPageBytes;
  }
  result.hits = best.take();
  for (Hit& hit : result.hits) hit.distance = space_.distance(hit.distance, query);
  return result;
}

}  // namespace mneme::ann
