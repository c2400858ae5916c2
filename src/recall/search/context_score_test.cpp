#include "recall/search/context_score.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "recall/erase.h"
#include "recall/search/search.h"
#include "recall/search/time_mentions.h"
#include "recall/test_stores.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class OneSeries final : public ContextSource {
 public:
  int64_t n_records() const override { return 100; }
  double mean_length() const override { return 10; }
  int64_t n_groups() const override { return 10; }
  std::vector<int64_t> series_lengths(std::span<const int64_t> series) override {
    return std::vector<int64_t>(series.size(), 100);
  }
  std::vector<std::pair<int64_t, RecordRow>> in_series(int64_t series, int64_t first, int64_t last) override {
    std::vector<std::pair<int64_t, RecordRow>> found;
    for (int64_t at = std::max<int64_t>(first, 1); at <= std::min<int64_t>(last, 10); ++at) {
      found.emplace_back(series * 100 + at, row(series, at));
    }
    return found;
  }
  static RecordRow row(int64_t series, int64_t position) {
    return {.n_terms = 10, .series = series, .position = position, .speaker = position % 2 != 0 ? "Ann Lee" : "Bo"};
  }
};

std::map<int64_t, double> scores_of(std::vector<TermMatch> matches, const std::vector<std::string>& words,
                                    const ContextWeights& weights, const std::vector<TimeRange>& times = {}) {
  OneSeries source;
  std::map<int64_t, double> scores;
  for (const ContextScore& each : context_scores(std::move(matches), {words, times, weights}, source)) {
    EXPECT_TRUE(scores.emplace(each.record, each.score).second) << "twice: " << each.record;
  }
  return scores;
}

/// Against the formula, for a series with matches at positions 4 and 5.
TEST(ContextScore, AgreesWithTheFormula) {
  ContextWeights w;
  w.speaker = 0;
  std::vector<TermMatch> matches = {{104, {1}, OneSeries::row(1, 4)}, {105, {2}, OneSeries::row(1, 5)}};
  matches[0].row.asks = true;
  const auto scores = scores_of(matches, {"boat"}, w);
  const auto idf = [](double N, double n) { return std::log(1 + (N - n + 0.5) / (n + 0.5)); };
  const double b4 = idf(100, 2) * 1 * 2.2 / (1 + 1.2), b5 = idf(100, 2) * 2 * 2.2 / (2 + 1.2);
  const double s = idf(10, 1) * 3 * 2.2 / (3 + 1.2);
  EXPECT_NEAR(scores.at(104), b4 + w.series * s + w.after * b5, 1e-9);
  EXPECT_NEAR(scores.at(105), b5 + w.series * s + (w.before + w.question) * b4, 1e-9);
  // Neighbours that hold no word.
  EXPECT_NEAR(scores.at(106), w.series * s + w.before * b5 + w.second * b4, 1e-9);
  EXPECT_NEAR(scores.at(103), w.series * s + w.after * b4 + w.second * b5, 1e-9);
  EXPECT_NEAR(scores.at(107), w.series * s + w.second * b5, 1e-9);
  EXPECT_EQ(scores.size(), 6u) << "102 to 107";
}

TEST(ContextScore, NamesSelectSpeakers) {
  const ContextWeights w;
  // "Ann" is in the text of record 104, which Bo said to her; both 104 and 109 speak of the boat.
  const std::vector<TermMatch> matches = {{104, {1, 1}, OneSeries::row(1, 4)}, {109, {0, 1}, OneSeries::row(1, 9)}};
  auto scores = scores_of(matches, {"ann", "boat"}, w);
  EXPECT_GT(scores.at(109), scores.at(104)) << "said by Ann";
  EXPECT_NEAR(scores.at(109) - scores.at(104), w.speaker * std::log(1 + 99.5 / 1.5), 1e-9) << "the name is no word";
  // Alone, the name is a word.
  scores = scores_of({{104, {1}, OneSeries::row(1, 4)}, {209, {1}, OneSeries::row(2, 9)}}, {"ann"}, {.speaker = 0});
  EXPECT_GT(scores.at(104), 0);
  // Roles are words.
  std::vector<TermMatch> roles = {{104, {1, 1}, OneSeries::row(1, 4)}, {209, {0, 1}, OneSeries::row(2, 9)}};
  roles[1].row.speaker = "user";
  scores = scores_of(roles, {"user", "boat"}, w);
  EXPECT_GT(scores.at(104), scores.at(209));
}

TEST(ContextScore, TimesCountWhereTheyFit) {
  std::vector<TermMatch> matches = {{104, {1}, OneSeries::row(1, 4)}, {204, {1}, OneSeries::row(2, 4)}};
  matches[1].row.event_time = parse_time("2023-05-20");
  const std::vector<TimeRange> may = {{parse_time("2023-05-01"), parse_time("2023-06-01")}};
  const auto scores = scores_of(matches, {"boat"}, {}, may);
  EXPECT_NEAR(scores.at(204) - scores.at(104), ContextWeights{}.time * std::log(1 + 99.5 / 1.5), 1e-9);
}

std::vector<std::string> mentioned(const std::string& text) {
  std::vector<std::string> all;
  for (const TimeRange& range : time_mentions(text, parse_time("2026-11-29T08:00"))) {
    all.push_back(format_time(range.from).substr(0, 10) + " " + format_time(range.before).substr(0, 10));
  }
  return all;
}

TEST(TimeMentions, AreReadAsPeopleWriteThem) {
  EXPECT_THAT(mentioned("What did Ann do on 8 May 2023?"), ElementsAre("2023-05-08 2023-05-09"));
  EXPECT_THAT(mentioned("on May 8th, 2023"), ElementsAre("2023-05-08 2023-05-09"));
  EXPECT_THAT(mentioned("the 3rd of June 2022"), ElementsAre("2022-06-03 2022-06-04"));
  EXPECT_THAT(mentioned("in December of 2023"), ElementsAre("2023-12-01 2024-01-01"));
  EXPECT_THAT(mentioned("in 2023"), ElementsAre("2023-01-01 2024-01-01"));
  EXPECT_THAT(mentioned("since 2023-05-08"), ElementsAre("2023-05-08 2023-05-09"));
  EXPECT_THAT(mentioned("yesterday"), ElementsAre("2026-11-28 2026-11-29"));
  EXPECT_THAT(mentioned("last week"), ElementsAre("2026-11-16 2026-11-23"));
  EXPECT_THAT(mentioned("last month or this year"), ElementsAre("2026-10-01 2026-11-01", "2026-01-01 2027-01-01"));
  EXPECT_THAT(mentioned("three days ago, a year ago"), ElementsAre("2026-11-26 2026-11-27", "2025-01-01 2026-01-01"));
  EXPECT_THAT(mentioned("you may march on"), IsEmpty());
  EXPECT_THAT(mentioned("31 February, 0 ago, 99999999999999999999"), IsEmpty());
  const auto april = mentioned("in April");
  EXPECT_EQ(april.size(), 21u);
  EXPECT_EQ(april.back(), "2026-04-01 2026-05-01");

  const std::vector<TimeRange> day = {{parse_time("2023-05-08"), parse_time("2023-05-09")}};
  EXPECT_EQ(time_fit(day, parse_time("2023-05-08T12:00")), 1);
  EXPECT_NEAR(time_fit(day, parse_time("2023-05-16")), 0.5, 1e-12);
  EXPECT_EQ(time_fit(day, parse_time("2023-05-07")), 0);
  EXPECT_EQ(time_fit({}, 0), 0);
}

class Series : public OnEachDatabase {
 protected:
  Record turn(const std::string& session, const std::string& speaker, const std::string& text) {
    Record record = note("bo", text);
    record.kind = Kind::kEpisode;
    record.speaker = speaker;
    record.scope.session = session;
    return record;
  }
  std::vector<std::string> found(Store& store, const std::string& text, std::optional<Time> as_of = {}) {
    Query query{.text = text, .scope = user("bo"), .k = 3, .diversity = 0, .as_of = as_of};
    std::vector<std::string> texts;
    for (const Hit& hit : search(store, query).hits) texts.push_back(hit.record.text);
    return texts;
  }
  /// Of the user's own rows: PostgreSQL shows no others.
  int64_t number(Store& store, const char* sql) {
    int64_t value = 0;
    store.read(user("bo"), [&] { value = store.database().integer(sql, {}); });
    return value;
  }
  std::string id_of(Store& store, const std::string& text) {
    std::string id;
    const State active[] = {State::kActive};
    store.for_each(user("bo"), active, [&](const Record& record) {
      if (record.text == text) id = record.id;
    });
    return id;
  }
};
MNEME_ON_EACH_DATABASE(Series);

TEST_P(Series, AnAnswerIsFoundByItsQuestion) {
  const auto store = open();
  store->add(std::vector<Record>{turn("a", "Ann", "Which instrument do you play?"),
                                 turn("a", "Bo", "The cello, since school."), turn("a", "Ann", "Nice."),
                                 turn("b", "Ann", "We saw a play."), turn("b", "Bo", "It rained."),
                                 note("bo", "The tent is in the attic.")});
  EXPECT_EQ(found(*store, "What instrument does Bo play?").at(1), "The cello, since school.");
  EXPECT_EQ(found(*store, "What instrument does Bo play?", clock_.time).at(1), "The cello, since school.");
  store->check();
  // Neighbours obey the filter: what is put away is not found.
  store->set_state(user("bo"), id_of(*store, "The cello, since school."), State::kArchived);
  EXPECT_THAT(found(*store, "What instrument does Bo play?"),
              ::testing::Not(::testing::Contains("The cello, since school.")));
  store->check();
}

TEST_P(Series, CountsFollowTheRecords) {
  const auto store = open();
  const auto groups = [&] { return number(*store, "SELECT n_groups FROM scope"); };
  const auto series = [&] { return number(*store, "SELECT COUNT(*) FROM series"); };
  store->add(std::vector<Record>{turn("a", "Ann", "one"), turn("a", "Bo", "two?"), turn("b", "Ann", "three"),
                                 note("bo", "four")});
  EXPECT_EQ(groups(), 3);
  EXPECT_EQ(series(), 2);
  store->update(user("bo"), id_of(*store, "three"), [](Record& r) { r.scope.session = "a"; });
  EXPECT_EQ(series(), 1);
  EXPECT_EQ(groups(), 2);
  store->check();
  store->update(user("bo"), id_of(*store, "two?"), [](Record& r) { r.text = "two is now much longer"; });
  store->update(user("bo"), id_of(*store, "one"), [](Record& r) { r.scope.session.clear(); });
  EXPECT_EQ(groups(), 3);
  store->check();
  erase(*store, user("bo"), std::vector<std::string>{id_of(*store, "three"), id_of(*store, "two is now much longer")},
        {});
  EXPECT_EQ(series(), 0) << "nothing is left of a session's name";
  EXPECT_EQ(groups(), 2);
  store->check();
  store->write(user("bo"), [&](Time) { store->database().execute("UPDATE scope SET n_groups = 7"); });
  EXPECT_THROW(store->check(), Error);
}

/// A store of the version before gets its series.
TEST_P(Series, OldStoresAreMigrated) {
  {
    const auto store = open();
    store->add(std::vector<Record>{turn("a", "Ann", "Which instrument do you play?"), turn("a", "Bo", "The cello."),
                                   turn("b", "Bo", "We saw a play."), note("bo", "four")});
    store->database().script(
        "DROP TABLE series; DROP INDEX record_of_series; ALTER TABLE scope DROP COLUMN n_groups;"
        "ALTER TABLE record DROP COLUMN series; ALTER TABLE record DROP COLUMN position; ALTER TABLE record DROP "
        "COLUMN asks;"
        "UPDATE meta SET value = '2' WHERE key = 'schema_version'");
  }
  const auto store = open();
  store->check();
  EXPECT_EQ(number(*store, "SELECT COUNT(*) FROM series"), 2);
  EXPECT_THAT(found(*store, "What instrument does Bo play?"), ::testing::Contains("The cello."));
}

}  // namespace
}  // namespace mneme::recall
