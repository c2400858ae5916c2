#include "recall/kept/vector_search.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "base/user_folder.h"
#include "recall/schema.h"
#include "recall/search/vectors.h"
#include "recall/store.h"

namespace mneme::recall {
namespace {

constexpr size_t kMostOpen = 64;       // indexes of different users at a time
constexpr size_t kBatch = 64;          // records in one statement
constexpr size_t kMostFetched = 4096;  // hits of an index that are worth looking at

bool is_server(const std::string& name) {
  return name.find("://") != std::string::npos;
}

/// Where indexes of a store are kept, "" when there is no place.
std::string folder_for(Store& store, const std::string& name) {
  if (!store.options().index_folder.empty()) return store.options().index_folder;
  if (!store.options().sqlite_vfs.empty()) return "";
  if (!is_server(store.database().name())) return store.database().name() + ".index";
  try {
    return user_cache_folder() + "/recall/" + name + ".index";
  } catch (const Error&) {  // no home
    return "";
  }
}

std::string name_of(Store& store) {
  std::string text = meta_value(store.database(), "term_key") + " index";
  if (is_server(store.database().name())) text += " " + store.database().name();
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

bool closer(const VectorMatch& a, const VectorMatch& b) {
  return a.cosine != b.cosine ? a.cosine > b.cosine : a.record < b.record;
}

}  // namespace

VectorSearch::VectorSearch(Store& store)
    : store_(store), name_(name_of(store)), memory_(store.options().index_bytes), ledger_(store.options().ledger) {
  folder_ = folder_for(store, name_);
  if (ledger_ == nullptr) {
    own_ledger_ = std::make_unique<Ledger>(memory_);
    ledger_ = own_ledger_.get();
  }
}

VectorSearch::~VectorSearch() = default;

IndexFiles VectorSearch::files_of(int64_t scope) const {
  return IndexFiles(folder_, name_, scope);
}

std::unique_ptr<ScopeIndex> VectorSearch::make(int64_t scope) {
  const uint64_t room = std::min(memory_, ledger_->available(Tier::kRam));
  const Store::Embedding embedding = store_.embedding();
  return std::make_unique<ScopeIndex>(*ledger_, files_of(scope), embedding.model, embedding.dimension, room,
                                      ann::find_index_kind(store_.options().index_kind));
}

ScopeIndex* VectorSearch::current(int64_t scope, Patience patience, VectorSearchCost& cost) {
  if (folder_.empty()) {
    cost.why_scan = "no place for an index";
    return nullptr;
  }
  try {
    try {
      return try_current(scope, patience, cost);
    } catch (const Error& e) {
      discard(scope, e);
      if (e.code() == ErrorCode::kOutOfBudget) open_.clear();
      if (e.code() == ErrorCode::kIo || e.code() == ErrorCode::kInvalidArgument) throw;
      return try_current(scope, patience, cost);
    }
  } catch (const Error& e) {
    open_.erase(scope);
    cost.why_scan = e.code() == ErrorCode::kOutOfBudget ? "no room in memory for an index" : e.what();
    return nullptr;
  }
}

ScopeIndex* VectorSearch::try_current(int64_t scope, Patience patience, VectorSearchCost& cost) {
  Database& db = store_.database();
  // Counts records without a vector too; that is cheap to know, and close enough.
  const int64_t n = db.integer("SELECT records FROM scope WHERE num = ?", {scope});
  if (n < static_cast<int64_t>(store_.options().index_from)) {
    cost.why_scan = "few vectors";
    return nullptr;
  }
  const bool may_take_long = patience == Patience::kAny;
  if (const auto found = open_.find(scope); found != open_.end() && !found->second.index->is_current_file()) {
    open_.erase(found);
  }
  if (!open_.contains(scope)) {
    if (open_.size() >= kMostOpen) {
      open_.erase(std::min_element(open_.begin(), open_.end(),
                                   [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; }));
    }
    if (ledger_->available(Tier::kRam) < memory_ / 2) open_.clear();
    std::unique_ptr<ScopeIndex> index = make(scope);
    switch (index->load(db)) {
      case ScopeIndex::Load::kReady:
        break;
      case ScopeIndex::Load::kInUse:
        cost.why_scan = "another process has the index";
        return nullptr;
      case ScopeIndex::Load::kNoRoom:
      case ScopeIndex::Load::kMissing:
        if (!may_take_long && n > static_cast<int64_t>(store_.options().index_in_search)) {
          cost.why_scan = "no index yet; `mneme cube index` makes it";
          return nullptr;
        }
        index->build(db);
        cost.built = true;
        break;
    }
    open_[scope].index = std::move(index);
  }
  Open& open = open_[scope];
  open.last_use = ++clock_;
  if (!may_take_long && open.index->lag(db) > store_.options().index_in_search) {
    cost.why_scan = "the index is far behind; `mneme cube index` brings it up to date";
    return nullptr;
  }
  cost.caught_up = open.index->catch_up(db);
  return open.index.get();
}

void VectorSearch::compare(int64_t scope, std::span<const float> query, const SqlCondition& condition,
                           std::span<const ann::Hit> records, std::vector<VectorMatch>& matches,
                           VectorSearchCost& cost) {
  // One form of the statement for all batches: the last id fills up.
  const std::string sql = vectors_of_records_sql(kBatch, condition.where);
  for (size_t begin = 0; begin < records.size(); begin += kBatch) {
    std::vector<SqlValue> parameters = {scope};
    for (size_t i = 0; i < kBatch; ++i) {
      parameters.emplace_back(static_cast<int64_t>(records[std::min(begin + i, records.size() - 1)].id));
    }
    parameters.insert(parameters.end(), condition.parameters.begin(), condition.parameters.end());
    store_.database().query(sql, parameters, [&](const SqlRow& row) {
      matches.push_back({row.integer(0), dot(query, vector_from_bytes(row.bytes(1)))});
      ++cost.read;
    });
  }
}

bool VectorSearch::match_index(ScopeIndex& index, int64_t scope, std::span<const float> query,
                               const SqlCondition& condition, size_t k, std::vector<VectorMatch>& matches,
                               VectorSearchCost& cost) {
  const size_t size = index.size();
  cost.way = ann::index_kind_name(index.kind());
  cost.vectors = size;
  for (size_t wanted = k + k / 4 + 16;; wanted *= 4) {
    const ann::SearchResult result = index.search(query, wanted);
    ++cost.rounds;
    cost.compared += result.cost.vectors_compared;
    cost.lists += result.cost.lists_read;
    cost.bytes += result.cost.bytes_read;
    matches.clear();
    compare(scope, query, condition, result.hits, matches, cost);
    if (matches.size() >= k || result.hits.size() >= size) return true;
    // A filter that lets little through is faster served by the tables, which look at nothing else.
    if (wanted * 4 > std::max<size_t>(size / 4, wanted) || wanted * 4 > kMostFetched) return false;
  }
}

std::vector<VectorMatch> VectorSearch::match(int64_t scope, std::span<const float> query, const SqlCondition& condition,
                                             size_t k, VectorSearchCost& cost) {
  const auto begin = std::chrono::steady_clock::now();
  cost = {};
  std::vector<VectorMatch> matches;
  bool found = false;
  if (ScopeIndex* index = current(scope, Patience::kSearch, cost)) {
    try {
      found = match_index(*index, scope, query, condition, k, matches, cost);
      if (!found) cost.why_scan = "narrow filter";
    } catch (const Error& e) {  // a damaged list, no room to read lists
      cost.why_scan = e.what();
      discard(scope, e);
    }
  }
  if (!found) {
    cost.way = "scan";
    matches = match_vectors(store_.database(), scope, query, condition.where, condition.parameters, k, cost.read);
    cost.vectors = cost.read;
  }
  std::sort(matches.begin(), matches.end(), closer);
  if (matches.size() > k) matches.resize(k);
  cost.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  return matches;
}

void VectorSearch::discard(int64_t scope, const Error& why) {
  open_.erase(scope);
  if (why.code() != ErrorCode::kCorruptData && why.code() != ErrorCode::kUnsupported) return;
  log().warn("{}; the index is made anew", why.what());
  files_of(scope).remove_all();
}

std::string VectorSearch::refresh(const Scope& scope) {
  std::string what;
  store_.read(scope, [&] {
    VectorSearchCost cost;
    what = "no vectors";
    const int64_t number = store_.scope_number(scope);
    if (number == 0 || store_.embedding_dimension() == 0) return;
    ScopeIndex* index = current(number, Patience::kAny, cost);
    what = index != nullptr ? std::string(ann::index_kind_name(index->kind())) : cost.why_scan;
    if (index != nullptr) index->keep();
  });
  return what;
}

void VectorSearch::purge(const Scope& scope, int64_t number, bool all) {
  if (folder_.empty() || number == 0 || !std::filesystem::exists(folder_)) return;
  const IndexFiles files = files_of(number);
  store_.read(scope, [&] {
    const std::optional<IndexState> state = files.read();
    if (!all && state && state->kind) {
      // Catching up takes what was erased out of the index and of its files.
      VectorSearchCost cost;
      ScopeIndex* index = current(number, Patience::kAny, cost);
      if (index != nullptr && index->purge()) return;
    }
    open_.erase(number);
    // Nothing older than this may be kept from now on, whoever has it still in memory.
    IndexState none;
    none.cursor.time = store_.database().integer("SELECT MAX(time) FROM event WHERE scope = ?", {number});
    if (!files.publish(none, 10'000, [] {})) files.remove_all();
  });
}

void VectorSearch::check() {
  if (folder_.empty()) return;
  for (const int64_t scope : scopes_with_index(folder_)) {
    const std::optional<IndexState> state = files_of(scope).read();
    if (!state || !state->kind) continue;
    open_.erase(scope);
    const std::unique_ptr<ScopeIndex> index = make(scope);
    if (index->load(store_.database()) != ScopeIndex::Load::kReady) continue;
    index->catch_up(store_.database());
    index->verify(store_.database());
  }
}

}  // namespace mneme::recall
