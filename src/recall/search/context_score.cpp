#include "recall/search/context_score.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <unordered_map>
#include <unordered_set>

#include "recall/search/ranking.h"
#include "recall/search/terms.h"

namespace mneme::recall {
namespace {

constexpr size_t kExpanded = 48;  // best records whose neighbours are scored too
constexpr std::array<std::string_view, 8> kRoles = {"user",  "assistant", "system", "tool",
                                                    "human", "ai",        "bot",    "model"};

/// Words of the names of those who said one of the matches.
class Speakers {
 public:
  explicit Speakers(std::span<const std::string> words) : words_(words) {}

  /// The query's words that are in this name, as a mask of their places.
  uint64_t named(const std::string& speaker) {
    if (speaker.empty()) return 0;
    const auto known = known_.find(speaker);
    if (known != known_.end()) return known->second;
    uint64_t mask = 0;
    for (const std::string& word : words_of(speaker)) {
      if (std::find(kRoles.begin(), kRoles.end(), word) != kRoles.end()) continue;
      const auto at = std::find(words_.begin(), words_.end(), word);
      if (at != words_.end()) mask |= uint64_t{1} << (at - words_.begin());
    }
    return known_[speaker] = mask;
  }

 private:
  std::span<const std::string> words_;
  std::unordered_map<std::string, uint64_t> known_;
};

/// BM25 of the series of each match.
std::vector<double> series_scores(std::span<const TermMatch> matches, ContextSource& source, double mean_length) {
  std::vector<TermMatch> groups;
  std::vector<size_t> group_of(matches.size());
  std::vector<int64_t> series, lengths;
  std::unordered_map<int64_t, size_t> known;
  for (size_t i = 0; i < matches.size(); ++i) {
    const RecordRow& row = matches[i].row;
    const auto [at, is_new] =
        row.series == 0 ? std::pair(known.end(), true) : known.try_emplace(row.series, groups.size());
    group_of[i] = is_new ? groups.size() : at->second;
    if (is_new) {
      groups.push_back({row.series, matches[i].counts});
      lengths.push_back(row.n_terms);
      if (row.series != 0) series.push_back(row.series);
      continue;
    }
    std::vector<uint16_t>& counts = groups[at->second].counts;
    for (size_t t = 0; t < counts.size(); ++t) {
      counts[t] = static_cast<uint16_t>(std::min(counts[t] + matches[i].counts[t], UINT16_MAX));
    }
  }
  const std::vector<int64_t> of_series = source.series_lengths(series);
  for (size_t i = 0; i < series.size(); ++i) lengths[known[series[i]]] = of_series[i];
  const double total = mean_length * static_cast<double>(source.n_records());
  const int64_t n_groups = std::max<int64_t>(source.n_groups(), 1);
  const std::vector<double> scores = bm25(groups, lengths, n_groups, total / static_cast<double>(n_groups));
  std::vector<double> of_match;
  for (const size_t group : group_of) of_match.push_back(scores[group]);
  return of_match;
}

class Scorer {
 public:
  Scorer(std::vector<TermMatch> matches, const ContextQuery& query, ContextSource& source)
      : matches_(std::move(matches)), query_(query), source_(source), speakers_(query.words) {
    const double n = std::max(static_cast<double>(source.n_records()), 1.0);
    unit_ = std::log(1 + (n - 0.5) / 1.5);
  }

  std::vector<ContextScore> scores() {
    take_names_out();
    std::vector<int64_t> lengths;
    for (const TermMatch& match : matches_) lengths.push_back(match.row.n_terms);
    own_ = bm25(matches_, lengths, source_.n_records(), source_.mean_length());
    of_series_ = series_scores(matches_, source_, source_.mean_length());
    for (size_t i = 0; i < matches_.size(); ++i) {
      if (matches_[i].row.series != 0) order_.push_back(i);
    }
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return place(a) < place(b); });
    std::vector<ContextScore> all;
    for (size_t i = 0; i < matches_.size(); ++i) {
      all.push_back({matches_[i].record, own_[i] + score_around(matches_[i].row, of_series_[i])});
    }
    expand(all);
    return all;
  }

 private:
  std::pair<int64_t, int64_t> place(size_t i) const { return {matches_[i].row.series, matches_[i].row.position}; }

  void take_names_out() {
    uint64_t named = 0;
    for (const TermMatch& match : matches_) named |= speakers_.named(match.row.speaker);
    const size_t n_words = query_.words.size();
    if (named == 0 || named == (n_words < 64 ? (uint64_t{1} << n_words) - 1 : ~uint64_t{0})) return;
    for (TermMatch& match : matches_) {
      for (size_t t = 0; t < match.counts.size(); ++t) {
        if (named >> t & 1) match.counts[t] = 0;
      }
    }
  }

  /// The match at a place, or null.
  const size_t* match_at(int64_t series, int64_t position) const {
    const std::pair wanted(series, position);
    const auto at = std::lower_bound(order_.begin(), order_.end(), wanted,
                                     [&](size_t i, const auto& value) { return place(i) < value; });
    return at != order_.end() && place(*at) == wanted ? &*at : nullptr;
  }

  /// All of the score but the record's own words.
  double score_around(const RecordRow& row, double of_series) {
    const ContextWeights& w = query_.weights;
    double score = w.series * of_series + w.time * unit_ * time_fit(query_.times, row.event_time);
    if (speakers_.named(row.speaker) != 0) score += w.speaker * unit_;
    if (row.series == 0) return score;
    const auto own_at = [&](int64_t offset) {
      const size_t* match = match_at(row.series, row.position + offset);
      return match != nullptr ? own_[*match] : 0.0;
    };
    const size_t* before = match_at(row.series, row.position - 1);
    if (before != nullptr) score += own_[*before] * (w.before + (matches_[*before].row.asks ? w.question : 0));
    return score + w.after * own_at(1) + w.second * (own_at(-2) + own_at(2));
  }

  /// Adds neighbours of the best that hold none of the words.
  void expand(std::vector<ContextScore>& all) {
    std::vector<size_t> best;
    for (const size_t i : order_) best.push_back(i);
    const size_t n = std::min(kExpanded, best.size());
    std::partial_sort(best.begin(), best.begin() + static_cast<ptrdiff_t>(n), best.end(), [&](size_t a, size_t b) {
      return all[a].score != all[b].score ? all[a].score > all[b].score : all[a].record < all[b].record;
    });
    std::unordered_set<int64_t> seen;
    for (size_t k = 0; k < n; ++k) {
      const RecordRow& row = matches_[best[k]].row;
      bool complete = true;
      for (int64_t offset = -2; offset <= 2; ++offset) {
        complete &= row.position + offset < 1 || match_at(row.series, row.position + offset) != nullptr;
      }
      if (complete) continue;
      for (const auto& [record, other] : source_.in_series(row.series, row.position - 2, row.position + 2)) {
        if (match_at(other.series, other.position) != nullptr || !seen.insert(record).second) continue;
        all.push_back({record, score_around(other, of_series_[best[k]])});
      }
    }
  }

  std::vector<TermMatch> matches_;
  const ContextQuery& query_;
  ContextSource& source_;
  Speakers speakers_;
  double unit_ = 0;
  std::vector<double> own_, of_series_;
  std::vector<size_t> order_;  ///< Matches that are in a series, by place.
};

}  // namespace

std::vector<ContextScore> context_scores(std::vector<TermMatch> matches, const ContextQuery& query,
                                         ContextSource& source) {
  return Scorer(std::move(matches), query, source).scores();
}

}  // namespace mneme::recall
