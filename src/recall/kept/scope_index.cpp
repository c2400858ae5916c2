#include "recall/kept/scope_index.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "recall/index/exact_index.h"
#include "recall/index/hnsw_index.h"
#include "recall/search/vectors.h"

namespace mneme::recall {
namespace {

constexpr int kLockWaitMs = 10'000;
/// Vectors in an exact index above which a graph is due (choose_index_kind's limit, twice, so that it does not come and
/// go).
constexpr uint64_t kMostExactValues = uint64_t{1} << 22;
constexpr size_t kMostPieceRows = size_t{1} << 16;

/// Vectors on their way into an index, a counted piece at a time.
class Pieces {
 public:
  Pieces(Ledger& ledger, ann::VectorIndex& index, size_t rows)
      : index_(index), rows_(rows), room_(ledger.reserve(Tag::kScratch, 0, "vectors on their way into the index")) {
    room_.resize(rows * (index.dimension() * sizeof(float) + sizeof(uint64_t)));
    ids_.reserve(rows);
    values_.reserve(rows * index.dimension());
  }
  void add(int64_t record, const std::string& bytes) {
    if (bytes.size() != index_.dimension() * sizeof(float)) {
      fail(ErrorCode::kCorruptData, "[index vectors] record {}: expected {} numbers, found {} bytes", record,
           index_.dimension(), bytes.size());
    }
    const std::vector<float> row = vector_from_bytes(bytes);
    ids_.push_back(static_cast<uint64_t>(record));
    values_.insert(values_.end(), row.begin(), row.end());
    if (ids_.size() == rows_) flush();
  }
  void flush() {
    if (ids_.empty()) return;
    index_.add(ids_, values_);
    ids_.clear();
    values_.clear();
  }

 private:
  ann::VectorIndex& index_;
  size_t rows_;
  Reservation room_;
  std::vector<uint64_t> ids_;
  std::vector<float> values_;
};

}  // namespace

ScopeIndex::ScopeIndex(Ledger& ledger, IndexFiles files, std::string model, uint32_t dimension, uint64_t memory,
                       std::optional<ann::IndexKind> kind)
    : ledger_(ledger),
      files_(std::move(files)),
      model_(std::move(model)),
      dimension_(dimension),
      memory_(memory),
      wanted_(kind) {}

ScopeIndex::~ScopeIndex() = default;

ann::SpannOptions ScopeIndex::spann_options() const {
  ann::SpannOptions options;
  options.pending_bytes = std::min<size_t>(options.pending_bytes, std::max<size_t>(memory_ / 4, size_t{1} << 20));
  return options;
}

bool ScopeIndex::own(const std::string& folder) {
  owner_ = FileLock::take(folder + "/owner", 0);
  return owner_.has_value();
}

IndexCursor ScopeIndex::newest(Database& db) const {
  IndexCursor cursor;
  db.query("SELECT time, seq FROM event WHERE scope = ? ORDER BY time DESC, seq DESC LIMIT 1", {files_.scope()},
           [&](const SqlRow& row) {
             cursor = {row.integer(0), row.integer(1)};
           });
  return cursor;
}

ScopeIndex::Load ScopeIndex::load(Database& db) {
  const std::optional<IndexState> state = files_.read();
  if (!state || !state->kind || state->model != model_ || state->dimension != dimension_) return Load::kMissing;
  // A database that was put back to an older state may have gone on differently.
  if (db.integer("SELECT COUNT(*) FROM event WHERE seq = ? AND scope = ? AND time = ?",
                 {state->cursor.sequence, files_.scope(), state->cursor.time}) == 0) {
    return Load::kMissing;
  }
  kind_ = *state->kind;
  if (kind_ == ann::IndexKind::kExact && state->vectors * dimension_ > kMostExactValues) return Load::kMissing;
  const std::string path = files_.path(state->file);
  try {
    if (ann::index_ram_bytes(kind_, state->vectors, dimension_, spann_options()) > memory_) return Load::kNoRoom;
    switch (kind_) {
      case ann::IndexKind::kExact:
        index_ = ann::ExactIndex::load(ledger_, path);
        break;
      case ann::IndexKind::kHnsw:
        index_ = ann::HnswIndex::load(ledger_, path);
        break;
      case ann::IndexKind::kSpann:
        if (!std::filesystem::exists(path)) return Load::kMissing;
        if (!own(path)) return Load::kInUse;
        index_ = ann::SpannIndex::open(ledger_, path, spann_options());
        break;
    }
  } catch (const Error& e) {
    owner_.reset();
    if (e.code() == ErrorCode::kOutOfBudget) return Load::kNoRoom;
    if (e.code() == ErrorCode::kNotFound) return Load::kMissing;  // replaced since, or lost
    throw;
  }
  if (index_->dimension() != dimension_ || index_->metric() != ann::Metric::kCosine) {
    index_.reset();
    owner_.reset();
    return Load::kMissing;
  }
  name_ = state->file;
  cursor_ = state->cursor;
  n_unsaved_ = 0;
  return Load::kReady;
}

void ScopeIndex::build(Database& db) {
  index_.reset();
  owner_.reset();
  std::filesystem::create_directories(std::filesystem::path(files_.path("x")).parent_path());
  const auto n = static_cast<uint64_t>(
      std::max<int64_t>(db.integer("SELECT COUNT(*) FROM vector WHERE scope = ?", {files_.scope()}), 0));
  // What is there now and what will come before the next build.
  kind_ = wanted_ ? *wanted_ : ann::choose_index_kind(n + n / 4, dimension_, memory_, spann_options());
  name_ = files_.new_name(kind_);
  const std::string path = files_.path(name_);
  if (kind_ == ann::IndexKind::kHnsw) {
    index_ = std::make_unique<ann::HnswIndex>(ledger_, dimension_, ann::Metric::kCosine, 16, 200, n + n / 16);
  } else if (kind_ == ann::IndexKind::kSpann) {
    std::filesystem::create_directory(path);
    if (!own(path)) fail(ErrorCode::kIo, "[build index] {}: somebody else has it", path);
    index_ = ann::SpannIndex::create(ledger_, path, dimension_, ann::Metric::kCosine, spann_options());
  } else {
    index_ = std::make_unique<ann::ExactIndex>(ledger_, dimension_, ann::Metric::kCosine);
  }
  cursor_ = newest(db);
  // SPANN builds from a piece at once: rows, mapped rows, centres and assignments.
  const uint64_t row_bytes = dimension_ * sizeof(float) * (kind_ == ann::IndexKind::kSpann ? 4 : 1) + 256;
  const uint64_t most = kind_ == ann::IndexKind::kSpann ? memory_ / 4 / row_bytes : 1024;
  Pieces pieces(ledger_, *index_, std::clamp<uint64_t>(std::min(most, n), 512, kMostPieceRows));
  db.query("SELECT record, data FROM vector WHERE scope = ? ORDER BY record", {files_.scope()},
           [&](const SqlRow& row) { pieces.add(row.integer(0), row.bytes(1)); });
  pieces.flush();
  publish(kLockWaitMs);
}

bool ScopeIndex::is_current_file() const {
  if (kind_ != ann::IndexKind::kSpann) return true;
  const std::optional<IndexState> state = files_.read();
  return state && state->file == name_;
}

uint64_t ScopeIndex::lag(Database& db) const {
  return static_cast<uint64_t>(db.integer("SELECT COUNT(DISTINCT record) FROM event WHERE scope = ? AND time > ?",
                                          {files_.scope(), cursor_.time}));
}

uint64_t ScopeIndex::catch_up(Database& db) {
  const IndexCursor now = newest(db);
  if (now == cursor_) return 0;
  if (now.time <= cursor_.time) {
    fail(ErrorCode::kCorruptData, "[index vectors] {}: expected events that go on, found the store in an older state",
         db.name());
  }
  struct Changed {
    int64_t record;
    bool is_new, is_erased;
  };
  std::vector<Changed> changed;
  db.query(
      "SELECT e.record, MIN(e.version), MAX(r.state) FROM event e JOIN record r ON r.num = e.record"
      " WHERE e.scope = ? AND e.time > ? GROUP BY e.record ORDER BY e.record",
      {files_.scope(), cursor_.time}, [&](const SqlRow& row) {
        changed.push_back(
            {row.integer(0), row.integer(1) == 1, row.integer(2) == static_cast<int64_t>(State::kErased)});
      });
  bool erased = false;
  Pieces pieces(ledger_, *index_, std::clamp<size_t>(changed.size(), 1, 1024));
  std::vector<uint64_t> gone;
  for (const Changed& each : changed) {
    std::string bytes;
    db.query("SELECT data FROM vector WHERE record = ? AND scope = ?", {each.record, files_.scope()},
             [&](const SqlRow& row) { bytes = row.bytes(0); });
    const auto id = static_cast<uint64_t>(each.record);
    if (bytes.empty()) {
      if (index_->contains(id)) gone.push_back(id);
      erased |= each.is_erased;
      continue;
    }
    if (!each.is_new && index_->contains(id)) {
      // Most changes leave the text, and so the vector, as it was.
      if (index_->holds(id, vector_from_bytes(bytes))) continue;
    }
    pieces.add(each.record, bytes);
  }
  pieces.flush();
  index_->remove(gone);
  cursor_ = now;
  n_unsaved_ += changed.size();
  if (erased) {
    purge();
  } else if (kind_ == ann::IndexKind::kSpann || n_unsaved_ > 64 + index_->size() / 128) {
    publish(0);
  }
  return changed.size();
}

bool ScopeIndex::purge() {
  index_->purge();
  n_unsaved_ = std::max<uint64_t>(n_unsaved_, 1);
  return publish(kLockWaitMs);
}

bool ScopeIndex::publish(int wait_ms) {
  IndexState state{kind_, name_, model_, dimension_, index_->size(), cursor_};
  if (kind_ != ann::IndexKind::kSpann) state.file = files_.new_name(kind_);
  const bool published = files_.publish(state, wait_ms, [&] {
    const std::string path = files_.path(state.file);
    if (kind_ != ann::IndexKind::kSpann) {
      index_->save(path);
    } else if (!std::filesystem::exists(path)) {
      fail(ErrorCode::kIo, "[keep index] {}: another process has removed it", path);
    }
  });
  if (!published) return false;
  name_ = state.file;
  n_unsaved_ = 0;
  return true;
}

ann::SearchResult ScopeIndex::search(std::span<const float> query, size_t n) const {
  ann::SearchParameters parameters;
  parameters.k = std::max<size_t>(n, 1);
  parameters.ef = std::max<size_t>(2 * n, 128);
  parameters.lists = std::max<size_t>(n, 64);
  parameters.prune = 4;
  return index_->search(query, parameters);
}

void ScopeIndex::verify(Database& db) {
  index_->verify();
  const auto differ = [&](const std::string& what) {
    fail(ErrorCode::kCorruptData, "[check index] {}: expected the vectors of the store, found {}", files_.path(name_),
         what);
  };
  uint64_t n = 0;
  // All ids, and the content of some.
  const uint64_t step = index_->size() / 500 + 1;
  db.query("SELECT record, data FROM vector WHERE scope = ? ORDER BY record", {files_.scope()}, [&](const SqlRow& row) {
    const auto id = static_cast<uint64_t>(row.integer(0));
    if (!index_->contains(id)) differ(fmt::format("none of record {}", id));
    if (n++ % step != 0) return;
    if (!index_->holds(id, vector_from_bytes(row.bytes(1)))) differ(fmt::format("another of record {}", id));
  });
  if (n != index_->size()) differ(fmt::format("{} in place of {}", index_->size(), n));
}

}  // namespace mneme::recall
