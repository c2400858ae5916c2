// What a SpannIndex keeps across runs: the checkpoint file, logs, and how they are put together again.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "recall/index/spann_index.h"

namespace mneme::ann {
namespace {

struct CheckpointHead {
  uint64_t generation, seed;
  uint32_t values, leaf, list_limit, candidates, copies;
  float rng_factor, reach, radius;
  uint32_t has_heads, reserved;
};
static_assert(sizeof(CheckpointHead) == 56);

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

/// Whether a crash left a log before its header was on the disk; such a log was never used.
bool never_begun(std::span<const std::byte> bytes) {
  return bytes.size() < 32 ||
         std::all_of(bytes.begin(), bytes.begin() + 32, [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

std::string SpannIndex::log_path(uint64_t generation) const {
  return file(fmt::format("log.{}", generation));
}

void SpannIndex::save(const std::string& path) {
  const std::lock_guard alone(writer_);
  if (path != folder_) {
    fail(ErrorCode::kUnsupported, "[save] expected the index's own folder {}, found {}; copy the folder instead",
         folder_, path);
  }
  flush();
}

void SpannIndex::write_checkpoint(uint64_t generation) const {
  IndexFileWriter out(file("heads"), {IndexFileKind::kSpann, metric(), dimension()});
  out.put(CheckpointHead{generation, options_.seed, static_cast<uint32_t>(options_.values),
                         static_cast<uint32_t>(options_.leaf), static_cast<uint32_t>(options_.list_limit),
                         static_cast<uint32_t>(options_.closure.candidates),
                         static_cast<uint32_t>(options_.closure.copies), options_.closure.rng_factor,
                         options_.closure.reach, space_.radius(), heads_ ? 1u : 0u, 0});
  slots_->write(out);
  if (heads_) {
    heads_->write(out);
    out.put_all(std::span(lists_.data(), heads_->size()));
  }
  out.commit();
}

void SpannIndex::checkpoint() {
  // Order makes it safe: lists, the next log, the file that names both, then what only the old one needed.
  postings_->sync();
  const uint64_t next = generation_ + 1;
  auto log = std::make_unique<UpdateLog>(open_file(log_path(next)), next, dimension());
  sync_folder(folder_);
  {
    const std::lock_guard hold(lock_);
    pending_.clear();  // flush() has written all that is alive
  }
  slots_->recycle();
  write_checkpoint(next);
  log_ = std::move(log);
  generation_ = next;
  changed_ = false;
  sync_folder(folder_);
  postings_->release_dropped();
  for (uint64_t old = next; old-- > 0 && ::unlink(log_path(old).c_str()) == 0;) {
  }
}

void SpannIndex::remove_leftovers() const {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, none)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("heads.") && name.ends_with(".tmp")) std::filesystem::remove(entry.path(), none);
  }
}

void SpannIndex::replay_logs(uint64_t generation) {
  for (uint64_t old = generation; old-- > 0 && ::unlink(log_path(old).c_str()) == 0;) {
  }
  for (uint64_t g = generation; g == generation || exists(log_path(g)); ++g) {
    LogContents contents;
    {
      const MappedFile bytes(log_path(g));
      if (g > generation && never_begun(bytes.bytes())) break;
      contents = parse_update_log(bytes.bytes(), dimension(), bytes.path());
      if (contents.generation != g) {
        fail(ErrorCode::kCorruptData, "[open index] {}: expected log {}, found log {}", folder_, g,
             contents.generation);
      }
      if (contents.valid_bytes < bytes.size()) {
        log().info("{}: {} bytes of a change that was never acknowledged are dropped", bytes.path(),
                   bytes.size() - contents.valid_bytes);
      }
    }
    for (const LogRecord& record : contents.records) {
      if (record.is_add) {
        insert(record.ids, record.rows, true);
      } else {
        erase(record.ids, true);
      }
    }
    log_ = std::make_unique<UpdateLog>(open_file(log_path(g)), contents);
    generation_ = g;
  }
}

void SpannIndex::verify() const {
  const std::lock_guard alone(writer_);
  std::vector<uint32_t> copies(slots_->size(), 0);
  std::vector<std::pair<uint32_t, uint32_t>> extents;
  uint64_t pages = 0;
  for (uint32_t head = 0; heads_ && head < heads_->size(); ++head) {
    const ListEntry& entry = lists_[head];
    if (heads_->removed(head) && entry.pages > 0) {
      fail(ErrorCode::kCorruptData, "[verify index] {}: expected no list of the removed head {}", folder_, head);
    }
    const Posting list = postings_->read(entry);
    for (uint32_t slot : list.slots) {
      if (slot >= copies.size())
        fail(ErrorCode::kCorruptData, "[verify index] {}: list {} names slot {} of {}", folder_, entry.name, slot,
             copies.size());
      ++copies[slot];
    }
    std::vector<uint32_t> sorted = list.slots;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      fail(ErrorCode::kCorruptData, "[verify index] {}: list {} holds a vector twice", folder_, entry.name);
    }
    if (entry.pages > 0) extents.emplace_back(entry.page, entry.pages);
    pages += entry.pages;
  }
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i - 1].first + extents[i - 1].second > extents[i].first) {
      fail(ErrorCode::kCorruptData, "[verify index] {}: two lists share page {}", folder_, extents[i].first);
    }
  }
  if (pages + postings_->n_free_pages() != postings_->n_pages()) {
    fail(ErrorCode::kCorruptData, "[verify index] {}: expected {} pages, found {} in lists and {} free", folder_,
         postings_->n_pages(), pages, postings_->n_free_pages());
  }
  for (uint32_t slot = 0; slot < copies.size(); ++slot) {
    if (copies[slot] != slots_->copies(slot)) {
      fail(ErrorCode::kCorruptData, "[verify index] {}: expected {} copies of vector {}, found {}", folder_,
           slots_->copies(slot), slots_->id(slot), copies[slot]);
    }
    if (slots_->alive(slot) && copies[slot] == 0 && !pending_.has(slot)) {
      fail(ErrorCode::kCorruptData, "[verify index] {}: vector {} is in no list", folder_, slots_->id(slot));
    }
  }
}

std::unique_ptr<SpannCheckpoint> parse_spann_checkpoint(Ledger& ledger, std::span<const std::byte> bytes,
                                                        std::string_view what) {
  const IndexFile file = parse_index_file(bytes, IndexFileKind::kSpann, what);
  ByteReader reader(file.payload, what);
  auto found = std::make_unique<SpannCheckpoint>();
  found->metric = file.header.metric;
  found->dimension = file.header.dimension;
  const auto head = reader.get<CheckpointHead>();
  if (head.values > 2 || head.leaf < 2 || head.leaf > 4096 || head.list_limit < 8 || head.list_limit > 1'000'000 ||
      head.copies == 0 || head.copies > 32 || head.candidates == 0 || head.candidates > 4096 || !(head.reach >= 1) || !(head.rng_factor > 0) || !std::isfinite(head.radius) ||
      head.radius < 0 || head.has_heads > 1) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected parameters in range", what);
  }
  found->generation = head.generation;
  found->radius = head.radius;
  SpannOptions& options = found->options;
  options.values = static_cast<VectorType>(head.values);
  options.leaf = head.leaf;
  options.list_limit = head.list_limit;
  options.closure = {head.candidates, head.copies, head.rng_factor, head.reach};
  options.seed = head.seed;
  found->slots = std::make_unique<SlotTable>(ledger);
  found->slots->read(reader);
  const VectorSpace space(found->metric, found->dimension, found->radius);
  const VectorCodec codec(options.values, space.dimension());
  uint64_t copies = 0, entries = 0;
  for (uint32_t slot = 0; slot < found->slots->size(); ++slot) {
    copies += found->slots->copies(slot);
    if (found->slots->alive(slot) && found->slots->copies(slot) == 0) {
      fail(ErrorCode::kCorruptData, "[read index] {}: vector {} is in no list", what, found->slots->id(slot));
    }
  }
  if (head.has_heads != 0) {
    found->heads = HeadTable::read(ledger, reader);
    if (found->heads->dimension() != space.dimension()) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected heads of dimension {}, found {}", what,
           space.dimension(), found->heads->dimension());
    }
    reader.expect_left(found->heads->size(), sizeof(ListEntry));
    found->lists.resize(found->heads->size());
    reader.get_all(std::span(found->lists));
  }
  for (const ListEntry& list : found->lists) {
    entries += list.count;
    const bool sound = list.count == 0 ? list.pages == 0 : list.pages == posting_pages(list.count, codec.bytes());
    if (!sound || list.pages > (1u << 20)) {
      fail(ErrorCode::kCorruptData, "[read index] {}: expected the pages of {} vectors, found {}", what, list.count,
           list.pages);
    }
  }
  if (copies != entries || reader.left() != 0) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected {} vectors in lists, found {}", what, copies, entries);
  }
  return found;
}

}  // namespace mneme::ann
