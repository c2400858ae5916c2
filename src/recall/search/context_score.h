#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "recall/search/time_mentions.h"
#include "recall/sql/database.h"

namespace mneme::recall {

/// How much each part of context_scores() counts.
struct ContextWeights {
  double series = 0.8;    ///< BM25 of the whole series.
  double before = 0.2;    ///< BM25 of the record before, in the same series;
  double question = 0.3;  ///< added when it asks something: this may be the answer.
  double after = 0.05;    ///< BM25 of the record after.
  double second = 0.12;   ///< BM25 of the second before and of the second after, each.
  double speaker = 0.55;  ///< Said by somebody whom the query names, in units of a word that only one record has.
  double time = 0.65;     ///< Fits a time in the query, in the same unit.
};

/// What the scores are computed from. Numbers are of one user.
class ContextSource {
 public:
  virtual ~ContextSource() = default;
  virtual int64_t n_records() const = 0;
  virtual double mean_length() const = 0;  ///< Terms of a record.
  /// Series, and records that are in none.
  virtual int64_t n_groups() const = 0;
  /// Terms of each of these series.
  virtual std::vector<int64_t> series_lengths(std::span<const int64_t> series) = 0;
  /// Records of a series at positions from `first` to `last` that satisfy the filter.
  virtual std::vector<std::pair<int64_t, RecordRow>> in_series(int64_t series, int64_t first, int64_t last) = 0;
};

/// What is asked.
struct ContextQuery {
  std::span<const std::string> words;  ///< As words_of() makes them, distinct; one for each count of a match.
  std::span<const TimeRange> times;
  const ContextWeights& weights;
};

struct ContextScore {
  int64_t record;
  double score;
};

/// Scores records together with what stands around them. One turn of a dialogue says little: "Yes, last Sunday!" is the
/// answer to the turn before, and the topic was named at the beginning of the session.
///
///   score(d) = B(d) + series S(d) + before B(d-1) + question [d-1 asks] B(d-1) + after B(d+1) + second (B(d-2) +
///   B(d+2))
///            + (speaker [the query names who said d] + time fit(d)) ln(1 + (N - 0.5) / 1.5)
///
/// B is BM25 of a record (ranking.h), d-1 the record before d in its series, S BM25 of the series as one text, with
/// lengths and counts of documents over the user's series; a record in no series is a series of its own. fit() is
/// time_fit() of its event time. Words that name a speaker of one of the matches select by speaker and are no words of
/// B and S, unless there are no others; the names of roles ("user", "assistant") are words only.
///
/// The neighbours of the best 48 are scored too when they hold none of the words. Weights were chosen on four
/// conversations of LoCoMo (docs/results/locomo.md). The idea that a passage is scored together with its document and
/// its neighbours is old: Callan, "Passage-level evidence in document retrieval", SIGIR 1994.
/// In no order. `matches` are all records of the user with one of the words.
std::vector<ContextScore> context_scores(std::vector<TermMatch> matches, const ContextQuery& query,
                                         ContextSource& source);

}  // namespace mneme::recall
