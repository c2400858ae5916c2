// What users of other memory systems complain about, as tests: the ten themes in order. Agents and models are not part
// of this; what is shown is what store and search alone must get right.

#include <gmock/gmock.h>

#include <regex>
#include <set>

#include "base/atomic_file.h"
#include "base/test_data.h"
#include "base/test_error.h"
#include "recall/cube.h"
#include "recall/erase.h"
#include "recall/history.h"
#include "recall/import/import_formats.h"
#include "recall/search/search.h"
#include "recall/test_stores.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Scenarios : public testing::Test {
 protected:
  Scenarios() {
    StoreOptions options;
    options.clock = clock_.source();
    store_ = Store::open(folder_.file("memory.db"), options);
  }
  std::vector<std::string> find(const std::string& text, const std::string& who = "bo") {
    std::vector<std::string> texts;
    for (const Hit& hit : search(*store_, {.text = text, .scope = user(who)}).hits) texts.push_back(hit.record.text);
    return texts;
  }

  TestFolder folder_;
  TestClock clock_;
  std::unique_ptr<Store> store_;
};

TEST_F(Scenarios, OneNoJunkNoDuplicatesNothingLost) {
  const std::string id = store_->add(note("bo", "is a vegetarian")).id;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(store_->add(note("bo", "is a vegetarian")).id, id);
  EXPECT_EQ(store_->stats("default").active, 1u);
  const Imported chat = parse_import(R"({"role": "system", "content": "You are helpful. The user may like music."})",
                                     ImportFormat::kChat, {"chat", user("bo"), false, 1});
  EXPECT_THAT(chat.records, IsEmpty()) << "instructions are no memories";
  // A contradiction becomes a new version and never an empty store; the new text is the new one.
  store_->update(user("bo"), id, [](Record& r) { r.text = "eats fish since May"; });
  EXPECT_THAT(find("vegetarian eats fish"), ElementsAre("eats fish since May"));
  EXPECT_EQ(history(*store_, user("bo"), id).front().after->text, "is a vegetarian");
  // A consolidation that went wrong is undone.
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(store_->add(note("bo", fmt::format("visited city {}", i))).id);
  const Time before = clock_.time;
  store_->merge(user("bo"), ids, id);
  EXPECT_EQ(store_->stats("default").merged, 20u);
  EXPECT_THAT(find("visited city"), IsEmpty());
  rollback(*store_, user("bo"), before);
  EXPECT_EQ(store_->stats("default").active, 21u);
}

TEST_F(Scenarios, TwoFoundAsSoonAsAddReturns) {
  const Added added = store_->add(note("bo", "the parcel is at the neighbour's"));
  const SearchResult result = search(*store_, {.text = "parcel", .scope = user("bo")});
  ASSERT_EQ(result.hits.size(), 1u);
  EXPECT_EQ(result.hits[0].record.id, added.id);
  EXPECT_GE(result.ms, 0);
}

TEST_F(Scenarios, ThreeCostIsBoundedAndReported) {
  std::vector<Record> records;
  for (int i = 0; i < 300; ++i) records.push_back(note("bo", fmt::format("long talk number {} about the garden", i)));
  store_->add(records);
  const SearchResult result =
      search(*store_, {.text = "garden", .scope = user("bo"), .k = 1000, .token_budget = 100, .diversity = 0});
  EXPECT_LE(result.tokens, 100u);
  EXPECT_GT(result.hits.size(), 3u);
  EXPECT_EQ(result.n_candidates, 300u);
  EXPECT_GT(result.n_over_budget, 0u);
}

TEST_F(Scenarios, FourDeletionIsExactInBothDirections) {
  const std::string one = store_->add(note("bo", "bo's pin is 1234")).id;
  store_->add(note("bo", "bo likes jazz"));
  store_->add(note("ann", "ann's pin is 9876"));
  erase(*store_, user("bo"), std::vector{one});
  EXPECT_THAT(find("pin"), IsEmpty());
  EXPECT_THAT(find("jazz"), ElementsAre("bo likes jazz"));
  EXPECT_EQ(erase_user(*store_, user("bo"), {.dry_run = true}).ids.size(), 1u);
  EXPECT_THAT(find("jazz"), ElementsAre("bo likes jazz"));
  EXPECT_EQ(erase_user(*store_, user("bo"), {.verify = true}).ids.size(), 1u);
  EXPECT_THAT(find("pin", "ann"), ElementsAre("ann's pin is 9876"));
  // Soft is another verb, and can be taken back.
  const std::string soft = store_->add(note("bo", "bo likes rain")).id;
  store_->set_state(user("bo"), soft, State::kArchived);
  EXPECT_THAT(find("rain"), IsEmpty());
  store_->set_state(user("bo"), soft, State::kActive);
  EXPECT_THAT(find("rain"), ElementsAre("bo likes rain"));
}

TEST_F(Scenarios, FiveNoFieldMovesARecordToAnotherTenant) {
  Record record = note("bo", "quarterly numbers");
  record.metadata = {{"user_id", "eve"}, {"tenant", "other"}};
  const std::string id = store_->add(record).id;
  store_->update(user("bo"), id, [](Record& r) { r.scope = {"other", "eve", "a", "s"}; });
  Scope eve;
  eve.tenant = "other";
  eve.user = "eve";
  EXPECT_THAT(search(*store_, {.text = "quarterly", .scope = eve}).hits, IsEmpty());
  EXPECT_THAT(find("quarterly", "eve"), IsEmpty());
  EXPECT_THAT(find("quarterly"), ElementsAre("quarterly numbers"));
}

TEST_F(Scenarios, SixTimesAreThoseOfTheEvent) {
  // A replayed dialogue keeps its dates; what held in two separate times is two facts.
  const Imported chat =
      parse_import(R"({"role": "user", "content": "I moved to Rome yesterday", "timestamp": "1:56 pm on 8 May, 2023"})",
                   ImportFormat::kChat, {"chat", user("bo"), false, clock_.time});
  store_->add(chat.records);
  Record job = note("bo", "works at the library");
  job.event_time = parse_time("2020-01-01");
  job.valid_until = parse_time("2021-01-01");
  store_->add(job);
  job.event_time = parse_time("2022-06-01");
  job.valid_until.reset();
  EXPECT_TRUE(store_->add(job).is_new);
  const auto working = [&](const char* day) {
    Query query{.text = "library", .scope = user("bo")};
    query.filter.valid_at = parse_time(day);
    return search(*store_, query).hits.size();
  };
  EXPECT_EQ(working("2019-05-05"), 0u);
  EXPECT_EQ(working("2020-05-05"), 1u);
  EXPECT_EQ(working("2021-05-05"), 0u);
  EXPECT_EQ(working("2023-05-05"), 1u);
  Query query{.text = "Rome", .scope = user("bo")};
  query.filter.event_before = parse_time("2023-05-09");
  EXPECT_EQ(search(*store_, query).hits.size(), 1u);
}

TEST_F(Scenarios, SevenIdsStayAndNobodyOverwritesUnseen) {
  const std::string id = store_->add(note("bo", "meeting on Monday")).id;
  const uint32_t seen = store_->get(user("bo"), id).version;
  const auto other = Store::open(folder_.file("memory.db"));
  EXPECT_EQ(other->get(user("bo"), id).text, "meeting on Monday");
  other->update(user("bo"), id, [](Record& r) { r.text = "meeting on Tuesday"; });
  EXPECT_THAT(error_of([&] {
                store_->update(
                    user("bo"), id, [](Record& r) { r.text = "lost"; }, "update", "", seen);
              }),
              HasSubstr("somebody else changed it"));
  EXPECT_EQ(store_->get(user("bo"), id).text, "meeting on Tuesday");
}

TEST_F(Scenarios, EightMemoriesLeaveAndComeBackWhole) {
  Record record = note("bo", "plays the cello");
  record.tags = {"music"};
  record.source = {"conversation", "chat#7", {}};
  store_->add(std::vector{record}, std::vector<std::vector<float>>{{0.6f, 0.8f}});
  export_cube(*store_, user("bo"), folder_.file("bo.cube"));
  const auto elsewhere = Store::open(folder_.file("elsewhere.db"));
  EXPECT_EQ(import_cube(*elsewhere, user("bo"), folder_.file("bo.cube")).added, 1u);
  const Query query{.text = "", .scope = user("bo"), .vector = {0.6f, 0.8f}};
  const SearchResult there = search(*elsewhere, query);
  ASSERT_EQ(there.hits.size(), 1u);
  EXPECT_EQ(there.hits[0].record.source.uri, "chat#7");
  EXPECT_NEAR(there.hits[0].why.raw[1], 1, 1e-6);
}

TEST_F(Scenarios, NineNothingFoundIsNotAFailure) {
  const ImportSource source{"in.jsonl", user("bo"), false, 1};
  EXPECT_THAT(parse_import("", ImportFormat::kChat, source).records, IsEmpty());
  EXPECT_THAT(error_of([&] { parse_import("{\"role\": \"user\", ", ImportFormat::kChat, source); }),
              HasSubstr("in.jsonl:1"));
  EXPECT_THAT(find("anything"), IsEmpty());
}

/// Evidence turns of a public benchmark, found by words and names alone, with no judge in between.
TEST_F(Scenarios, TenEvidenceRecallCanBeRepeated) {
  const auto path = shared_path("data/locomo/locomo7.json");
  if (!path) GTEST_SKIP() << "no data/locomo";
  const Json sample = parse_json(read_text_file(*path), "locomo")[0];
  const Json& talk = sample["conversation"];
  std::vector<Record> turns;
  for (int s = 1; talk.contains(fmt::format("session_{}", s)); ++s) {
    const std::string date = talk[fmt::format("session_{}_date_time", s)];
    for (const Json& turn : talk[fmt::format("session_{}", s)]) {
      Record record = note("bo", turn["speaker"].get<std::string>() + ": " + turn["text"].get<std::string>());
      record.kind = Kind::kEpisode;
      record.event_time = parse_time(date);
      record.source = {"conversation", turn["dia_id"], {}};
      turns.push_back(record);
    }
  }
  store_->add(turns);
  double recall = 0;
  int n = 0;
  for (const Json& qa : sample["qa"]) {
    std::set<std::string> evidence;
    static const std::regex id("D[0-9]+:[0-9]+");
    const std::string all = qa.value("evidence", Json::array()).dump();
    for (std::sregex_iterator at(all.begin(), all.end(), id), end; at != end; ++at) evidence.insert(at->str());
    if (evidence.empty()) continue;
    Query query{.text = qa["question"], .scope = user("bo")};
    query.diversity = 0;
    int found = 0;
    for (const Hit& hit : search(*store_, query).hits) found += static_cast<int>(evidence.count(hit.record.source.uri));
    recall += static_cast<double>(found) / static_cast<double>(evidence.size());
    ++n;
  }
  ASSERT_GT(n, 100);
  RecordProperty("recall_at_10", std::to_string(recall / n));
  EXPECT_GT(recall / n, 0.55) << "plain BM25 over all conversations reaches 0.64";
}

}  // namespace
}  // namespace mneme::recall
