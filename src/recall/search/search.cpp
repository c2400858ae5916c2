#include "recall/search/search.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/utf8.h"
#include "recall/history.h"
#include "recall/search/vectors.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

constexpr int64_t kMostMatches = 200'000;  // of one channel; far above what a person's memory holds for some words
constexpr size_t kMostQueryTerms = 64;
constexpr size_t kMostQueryBytes = 64 << 10;
constexpr size_t kMostSingleReads = 256;  // lengths of series that are asked for one by one
constexpr size_t kLinkSeeds = 5;  // best hits whose neighbours are looked at

std::vector<std::string> distinct(std::vector<std::string> terms) {
  std::unordered_set<std::string> seen;
  std::vector<std::string> out;
  for (std::string& term : terms) {
    if (out.size() < kMostQueryTerms && seen.insert(term).second) out.push_back(std::move(term));
  }
  return out;
}

/// Where candidates come from: the tables, or records of a past state.
class Candidates : public ContextSource {
 public:
  virtual std::vector<TermMatch> match(std::span<const std::string> terms) = 0;
  virtual std::vector<int64_t> newest(size_t n) = 0;
  virtual std::vector<int64_t> neighbours(int64_t record) = 0;
  /// Fills what fused_score() needs besides ranks.
  virtual void describe(Candidate& candidate) = 0;
  virtual Record load(int64_t record) = 0;
};

class StoredCandidates final : public Candidates {
 public:
  StoredCandidates(Store& store, int64_t scope, SqlCondition condition, Time now)
      : db_(store.database()), store_(store), scope_(scope), condition_(std::move(condition)), now_(now) {
    db_.query("SELECT records, terms, n_groups FROM scope WHERE num = ?", {scope}, [&](const SqlRow& row) {
      n_records_ = row.integer(0);
      n_terms_ = row.integer(1);
      n_groups_ = row.integer(2);
    });
  }

  std::vector<TermMatch> match(std::span<const std::string> terms) override {
    std::vector<TermMatch> found =
        db_.match_terms(fmt::format("s{}", scope_), terms, condition_.where, condition_.parameters, kMostMatches);
    for (const TermMatch& match : found) rows_[match.record] = match.row;
    return found;
  }
  int64_t n_groups() const override { return n_groups_; }
  std::vector<int64_t> series_lengths(std::span<const int64_t> series) override {
    std::unordered_map<int64_t, int64_t> lengths;
    const auto add = [&](const SqlRow& row) { lengths[row.integer(0)] = row.integer(1); };
    if (series.size() > kMostSingleReads) {
      db_.query("SELECT num, terms FROM series WHERE scope = ?", {scope_}, add);
    } else {
      for (const int64_t each : series) db_.query("SELECT num, terms FROM series WHERE num = ?", {each}, add);
    }
    std::vector<int64_t> all;
    for (const int64_t each : series) all.push_back(lengths[each]);
    return all;
  }
  std::vector<std::pair<int64_t, RecordRow>> in_series(int64_t series, int64_t first, int64_t last) override {
    std::vector<SqlValue> parameters = {series, first, last, scope_};
    parameters.insert(parameters.end(), condition_.parameters.begin(), condition_.parameters.end());
    std::vector<std::pair<int64_t, RecordRow>> found;
    db_.query(fmt::format("SELECT r.num, {} FROM record r WHERE r.series = ? AND r.position BETWEEN ? AND ? AND"
                          " r.scope = ? AND {} ORDER BY r.position",
                          kRecordRowColumns, condition_.where),
              parameters, [&](const SqlRow& row) { found.emplace_back(row.integer(0), record_row(row, 1)); });
    for (const auto& [record, row] : found) rows_[record] = row;
    return found;
  }
  int64_t n_records() const override { return n_records_; }
  double mean_length() const override {
    return static_cast<double>(n_terms_) / static_cast<double>(std::max<int64_t>(n_records_, 1));
  }
  std::vector<int64_t> newest(size_t n) override {
    std::vector<SqlValue> parameters = {scope_};
    parameters.insert(parameters.end(), condition_.parameters.begin(), condition_.parameters.end());
    parameters.emplace_back(static_cast<int64_t>(n));
    std::vector<int64_t> records;
    db_.query("SELECT r.num FROM record r WHERE r.scope = ? AND " + condition_.where +
                  " ORDER BY r.event_time DESC, r.num DESC LIMIT ?",
              parameters, [&](const SqlRow& row) { records.push_back(row.integer(0)); });
    return records;
  }
  std::vector<int64_t> neighbours(int64_t record) override {
    std::vector<SqlValue> parameters = {record, record, scope_};
    parameters.insert(parameters.end(), condition_.parameters.begin(), condition_.parameters.end());
    std::vector<int64_t> found;
    // The plus keeps SQLite from walking through the scope (vectors_of_records_sql()).
    db_.query(
        "SELECT r.num FROM record r WHERE r.num IN (SELECT target FROM link WHERE source = ? UNION SELECT source FROM"
        " link WHERE target = ?) AND +r.scope = ? AND " +
            condition_.where + " ORDER BY r.num LIMIT 32",
        parameters, [&](const SqlRow& row) { found.push_back(row.integer(0)); });
    return found;
  }
  void describe(Candidate& candidate) override {
    const RecordRow& row = row_of(candidate.record);
    candidate.age_days = static_cast<double>(now_ - row.event_time) / static_cast<double>(kMicrosPerDay);
    candidate.importance = row.importance;
    candidate.confidence = row.confidence;
  }
  Record load(int64_t record) override { return store_.load(record); }

 private:
  const RecordRow& row_of(int64_t record) {
    const auto known = rows_.find(record);
    if (known != rows_.end()) return known->second;
    RecordRow& found = rows_[record];
    db_.query(fmt::format("SELECT {} FROM record r WHERE r.num = ?", kRecordRowColumns), {record},
              [&](const SqlRow& row) { found = record_row(row, 0); });
    return found;
  }

  Database& db_;
  Store& store_;
  int64_t scope_;
  SqlCondition condition_;
  Time now_;
  int64_t n_records_ = 0, n_terms_ = 0, n_groups_ = 0;
  std::unordered_map<int64_t, RecordRow> rows_;
};

/// Records in memory; a record's number is its index.
class PastCandidates final : public Candidates {
 public:
  PastCandidates(std::vector<Record> records, const TermHasher& hasher, const Filter& filter, Time now)
      : records_(std::move(records)), filter_(filter), now_(now) {
    std::unordered_map<std::string, int64_t> series;
    for (size_t i = 0; i < records_.size(); ++i) {
      const Record& record = records_[i];
      by_id_[record.id] = static_cast<int64_t>(i);
      terms_.push_back(hasher.record_terms(record));
      RecordRow row{.n_terms = static_cast<int64_t>(terms_.back().size() + 1),
                    .event_time = record.event_time,
                    .asks = asks(record),
                    .importance = record.importance,
                    .confidence = record.confidence,
                    .speaker = record.speaker};
      if (const std::string name = series_name(0, record); !name.empty()) {
        row.series = series.try_emplace(name, static_cast<int64_t>(series.size()) + 1).first->second;
        members_.resize(series.size() + 1);
        std::vector<size_t>& members = members_[static_cast<size_t>(row.series)];
        members.push_back(i);
        row.position = static_cast<int64_t>(members.size());
      } else {
        ++n_loose_;
      }
      n_terms_ += row.n_terms;
      rows_.push_back(std::move(row));
    }
  }

  std::vector<TermMatch> match(std::span<const std::string> terms) override {
    std::vector<TermMatch> matches;
    for (size_t i = 0; i < records_.size(); ++i) {
      if (!matches_filter(i)) continue;
      TermMatch match{static_cast<int64_t>(i), std::vector<uint16_t>(terms.size()), rows_[i]};
      bool any = false;
      for (size_t t = 0; t < terms.size(); ++t) {
        const auto n = std::count(terms_[i].begin(), terms_[i].end(), terms[t]);
        match.counts[t] = static_cast<uint16_t>(std::min<ptrdiff_t>(n, UINT16_MAX));
        any |= n > 0;
      }
      if (any) matches.push_back(std::move(match));
    }
    return matches;
  }
  int64_t n_groups() const override { return static_cast<int64_t>(std::max<size_t>(members_.size(), 1)) - 1 + n_loose_; }
  std::vector<int64_t> series_lengths(std::span<const int64_t> series) override {
    std::vector<int64_t> lengths;
    for (const int64_t each : series) {
      int64_t sum = 0;
      for (const size_t i : members_[static_cast<size_t>(each)]) sum += rows_[i].n_terms;
      lengths.push_back(sum);
    }
    return lengths;
  }
  std::vector<std::pair<int64_t, RecordRow>> in_series(int64_t series, int64_t first, int64_t last) override {
    const std::vector<size_t>& members = members_[static_cast<size_t>(series)];
    std::vector<std::pair<int64_t, RecordRow>> found;
    for (int64_t at = std::max<int64_t>(first, 1); at <= std::min(last, static_cast<int64_t>(members.size())); ++at) {
      const size_t i = members[static_cast<size_t>(at - 1)];
      if (matches_filter(i)) found.emplace_back(static_cast<int64_t>(i), rows_[i]);
    }
    return found;
  }
  int64_t n_records() const override { return static_cast<int64_t>(records_.size()); }
  double mean_length() const override {
    return static_cast<double>(n_terms_) / static_cast<double>(std::max<size_t>(records_.size(), 1));
  }
  std::vector<int64_t> newest(size_t n) override {
    std::vector<int64_t> found;
    for (size_t i = 0; i < records_.size(); ++i) {
      if (matches_filter(i)) found.push_back(static_cast<int64_t>(i));
    }
    std::stable_sort(found.begin(), found.end(), [&](int64_t a, int64_t b) {
      return records_[static_cast<size_t>(a)].event_time > records_[static_cast<size_t>(b)].event_time;
    });
    if (found.size() > n) found.resize(n);
    return found;
  }
  std::vector<int64_t> neighbours(int64_t record) override {
    std::vector<int64_t> found;
    for (const Link& link : records_[static_cast<size_t>(record)].links) {
      const auto at = by_id_.find(link.to);
      if (at != by_id_.end() && matches_filter(static_cast<size_t>(at->second))) found.push_back(at->second);
    }
    return found;
  }
  void describe(Candidate& candidate) override {
    const Record& record = records_[static_cast<size_t>(candidate.record)];
    candidate.age_days = static_cast<double>(now_ - record.event_time) / static_cast<double>(kMicrosPerDay);
    candidate.importance = record.importance;
    candidate.confidence = record.confidence;
  }
  Record load(int64_t record) override { return records_[static_cast<size_t>(record)]; }

 private:
  bool matches_filter(size_t i) const { return matches(filter_, records_[i], now_); }

  std::vector<Record> records_;
  const Filter& filter_;
  Time now_;
  std::vector<std::vector<std::string>> terms_;
  std::vector<RecordRow> rows_;
  std::vector<std::vector<size_t>> members_;  ///< Records of each series, from number 1 on, in order.
  std::unordered_map<std::string, int64_t> by_id_;
  int64_t n_terms_ = 0, n_loose_ = 0;
};

/// The candidates of a search and what the channels say of them.
class Fusion {
 public:
  explicit Fusion(Candidates& source) : source_(source) {}

  /// Adds a channel's findings. Records with the same score share the last of their ranks.
  void add(Channel channel, std::vector<std::pair<int64_t, double>> found) {
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    const auto c = static_cast<size_t>(channel);
    size_t end = 0;  // of the records with the score of record i
    for (size_t i = 0; i < found.size(); ++i) {
      while (end < found.size() && (end <= i || found[end].second == found[i].second)) ++end;
      Candidate& candidate = at(found[i].first);
      candidate.rank[c] = static_cast<uint32_t>(end);
      candidate.raw[c] = found[i].second;
      if (found[i].second > 0) candidate.share[c] = found[i].second / found[0].second;
    }
  }

  void add_words(std::span<const std::string> terms, const ContextQuery& query) {
    if (terms.empty()) return;
    std::vector<std::pair<int64_t, double>> found;
    for (const ContextScore& each : context_scores(source_.match(terms), query, source_)) {
      found.emplace_back(each.record, each.score);
    }
    add(Channel::kText, std::move(found));
  }

  void add_entities(std::span<const std::string> terms) {
    if (terms.empty()) return;
    const std::vector<TermMatch> matches = source_.match(terms);
    // The length of a text says nothing about its names.
    const std::vector<int64_t> lengths(matches.size(), std::llround(source_.mean_length()));
    const std::vector<double> scores = bm25(matches, lengths, source_.n_records(), source_.mean_length());
    std::vector<std::pair<int64_t, double>> found;
    for (size_t i = 0; i < scores.size(); ++i) found.emplace_back(matches[i].record, scores[i]);
    add(Channel::kEntity, std::move(found));
  }

  /// Best first.
  std::vector<Candidate> ranked(const FusionWeights& weights) {
    std::vector<Candidate> all;
    for (auto& [record, candidate] : candidates_) {
      source_.describe(candidate);
      candidate.score = fused_score(candidate, weights);
      all.push_back(candidate);
    }
    std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
      return a.score != b.score ? a.score > b.score : a.record < b.record;
    });
    return all;
  }

 private:
  Candidate& at(int64_t record) {
    Candidate& candidate = candidates_[record];
    candidate.record = record;
    return candidate;
  }

  Candidates& source_;
  std::unordered_map<int64_t, Candidate> candidates_;
};

/// Neighbours of the best candidates, in the order of their seeds.
void add_neighbours(Fusion& fusion, Candidates& source, const FusionWeights& weights) {
  std::vector<std::pair<int64_t, double>> found;
  std::unordered_set<int64_t> seen;
  const std::vector<Candidate> best = fusion.ranked(weights);
  for (size_t i = 0; i < std::min(kLinkSeeds, best.size()); ++i) {
    for (const int64_t neighbour : source.neighbours(best[i].record)) {
      if (seen.insert(neighbour).second) found.emplace_back(neighbour, best[i].score);
    }
  }
  fusion.add(Channel::kLink, std::move(found));
}

/// Likeness of two records for diversity: the share of words that they have in common (Jaccard).
class Likeness {
 public:
  explicit Likeness(std::span<const Hit> hits) {
    for (const Hit& hit : hits) {
      std::vector<size_t> words;  // their hashes; a collision makes two texts a little more alike
      for (const std::string& word : words_of(hit.record.text)) words.push_back(std::hash<std::string>{}(word));
      std::sort(words.begin(), words.end());
      words.erase(std::unique(words.begin(), words.end()), words.end());
      words_.push_back(std::move(words));
    }
  }
  double operator()(size_t i, size_t j) const {
    const std::vector<size_t>&a = words_[i], &b = words_[j];
    size_t common = 0;
    for (size_t x = 0, y = 0; x < a.size() && y < b.size();) {
      common += a[x] == b[y];
      const bool step_x = a[x] <= b[y], step_y = b[y] <= a[x];
      x += step_x;
      y += step_y;
    }
    const size_t all = a.size() + b.size() - common;
    return all == 0 ? 0 : static_cast<double>(common) / static_cast<double>(all);
  }

 private:
  std::vector<std::vector<size_t>> words_;
};

/// The vector to search for, of length 1; empty when the store is searched by words alone.
std::vector<float> query_vector(Store& store, const Query& query) {
  Embedder* embedder = store.options().embedder;
  if (query.as_of || (query.vector.empty() && (embedder == nullptr || query.text.empty()))) return {};
  const std::vector<float> vector =
      query.vector.empty() ? embedder->embed(std::span(&query.text, 1), Embedder::Role::kQuery).front() : query.vector;
  const uint32_t dimension = store.embedding_dimension();
  if (dimension == 0) return {};
  return vector_from_bytes(stored_vector(vector, dimension));
}

/// Chooses from loaded candidates, best first: different ones first, then what fits the budget.
void choose(SearchResult& result, std::vector<Hit> loaded, const Query& query) {
  std::vector<double> relevance;
  for (const Hit& hit : loaded) relevance.push_back(hit.score);
  std::vector<size_t> order;
  if (query.diversity > 0) {
    const Likeness likeness(loaded);
    // A budget may pass over some.
    order = diverse_order(relevance, 1 - query.diversity, query.token_budget ? loaded.size() : query.k, likeness);
  } else {
    for (size_t i = 0; i < loaded.size(); ++i) order.push_back(i);
  }
  for (const size_t i : order) {
    if (result.hits.size() == query.k) break;
    Hit& hit = loaded[i];
    hit.tokens = query.count_tokens ? query.count_tokens(hit.record.text) : estimate_tokens(hit.record.text);
    if (query.token_budget && result.tokens + hit.tokens > *query.token_budget) {
      ++result.n_over_budget;
      continue;
    }
    result.tokens += hit.tokens;
    result.hits.push_back(std::move(hit));
  }
}

void check(const Query& query) {
  if (!is_valid_utf8(query.text)) fail(ErrorCode::kInvalidArgument, "[search] query: expected valid UTF-8");
  if (query.text.size() > kMostQueryBytes) {
    fail(ErrorCode::kInvalidArgument, "[search] query: expected at most {} bytes, found {}", kMostQueryBytes,
         query.text.size());
  }
  if (!(query.diversity >= 0 && query.diversity <= 1)) {
    fail(ErrorCode::kInvalidArgument, "[search] diversity: expected a number from 0 to 1, found {}", query.diversity);
  }
  if (query.k > 10'000) fail(ErrorCode::kInvalidArgument, "[search] expected at most 10000 results, found {}", query.k);
}

}  // namespace

uint64_t estimate_tokens(std::string_view text) {
  uint64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    words += inside && blank;
    inside = !blank;
  }
  return std::max<uint64_t>(words + inside, (text.size() + 2) / 3);
}

SearchResult search(Store& store, const Query& query) {
  check(query);
  const auto begin = std::chrono::steady_clock::now();
  SearchResult result;
  const std::vector<float> vector = query_vector(store, query);
  Filter filter = query.filter;
  if (!query.scope.agent.empty()) filter.agent = query.scope.agent;
  if (!query.scope.session.empty()) filter.session = query.scope.session;
  const Time time = query.as_of.value_or(store.clock());
  const TermHasher& hasher = store.terms();
  const std::vector<std::string> words = distinct(words_of(query.text));
  std::vector<std::string> terms;
  for (const std::string& word : words) terms.push_back(hasher.term(TermHasher::Class::kWord, word));
  const std::vector<TimeRange> times = time_mentions(query.text, time);
  const std::vector<std::string> entities = distinct(hasher.entity_terms(query.text));
  const auto run = [&](Candidates& source, int64_t scope, const SqlCondition& condition) {
    Fusion fusion(source);
    fusion.add_words(terms, {words, times, query.weights.context});
    fusion.add_entities(entities);
    if (!vector.empty()) {
      std::vector<std::pair<int64_t, double>> found;
      const size_t n = std::max<size_t>(4 * query.k, 60);
      for (const VectorMatch& match :
           store.vectors().match(scope, vector, condition, n, result.vectors)) {
        found.emplace_back(match.record, match.cosine);
      }
      fusion.add(Channel::kVector, std::move(found));
    }
    if (query.text.find_first_not_of(" \t\r\n") == query.text.npos && vector.empty()) {
      std::vector<std::pair<int64_t, double>> found;
      for (const int64_t record : source.newest(std::max<size_t>(query.k, 1)))
        found.emplace_back(record, 1.0 / static_cast<double>(found.size() + 1));
      fusion.add(Channel::kText, std::move(found));
    }
    add_neighbours(fusion, source, query.weights.fusion);
    const std::vector<Candidate> ranked = fusion.ranked(query.weights.fusion);
    result.n_candidates = ranked.size();
    // Diversity and budget choose from more than are asked for.
    const size_t most = std::max<size_t>(query.token_budget ? 8 * query.k : 3 * query.k, 30);
    std::vector<Hit> loaded;
    for (const Candidate& candidate : ranked) {
      if (loaded.size() == most) break;
      Hit hit{source.load(candidate.record), candidate.score, 0, candidate};
      // The tables have chosen by most of the filter; the record itself has the last word, on its owner too.
      if (hit.record.scope.tenant != query.scope.tenant || hit.record.scope.user != query.scope.user) continue;
      if (matches(filter, hit.record, time)) loaded.push_back(std::move(hit));
    }
    choose(result, std::move(loaded), query);
  };
  if (query.k > 0 && query.as_of) {
    PastCandidates source(records_as_of(store, query.scope, *query.as_of), hasher, filter, time);
    run(source, 0, {});
  } else if (query.k > 0) {
    store.read(query.scope, [&] {
      result = {};
      const int64_t scope = store.scope_number(query.scope);
      if (scope == 0) return;
      const SqlCondition condition = sql_condition(filter, time);
      StoredCandidates source(store, scope, condition, time);
      run(source, scope, condition);
    });
  }
  result.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace mneme::recall
