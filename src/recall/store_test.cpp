// What every database must do alike.

#include "recall/store.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <thread>

#include "base/philox.h"
#include "base/test_error.h"
#include "recall/erase.h"
#include "recall/history.h"
#include "recall/schema.h"
#include "recall/search/search.h"
#include "recall/test_stores.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class StoreTest : public OnEachDatabase {};
MNEME_ON_EACH_DATABASE(StoreTest);

TEST_P(StoreTest, ChangesAreVersionsOfOneRecord) {
  const auto store = open();
  Record mia = note("bo", "Ann's daughter is called Mia");
  mia.tags = {"Family", "family", "people"};
  mia.speaker = "Ann";
  mia.metadata = {{"room", 7}};
  const Added added = store->add(mia);
  EXPECT_TRUE(added.is_new);
  EXPECT_EQ(store->add(mia).id, added.id);
  EXPECT_FALSE(store->add(mia).is_new);
  const Record first = store->get(user("bo"), added.id.substr(0, 8));
  EXPECT_THAT(first.tags, ElementsAre("family", "people"));
  EXPECT_EQ(first.metadata["room"], 7);
  EXPECT_EQ(first.version, 1u);

  const Record second = store->update(
      user("bo"), added.id, [](Record& r) { r.text = "Ann's daughter is called Maria"; }, "update", "typo");
  EXPECT_EQ(second.version, 2u);
  EXPECT_THAT(error_of([&] {
                store->update(
                    user("bo"), added.id, [](Record&) {}, "update", "", 1);
              }),
              HasSubstr("expected version 1, found 2"));
  store->set_state(user("bo"), added.id, State::kArchived);
  EXPECT_THAT(error_of([&] { store->set_state(user("bo"), added.id, State::kArchived); }),
              HasSubstr("archived already"));
  EXPECT_TRUE(store->add(mia).is_new) << "what is put away may be learned anew";
  store->set_state(user("bo"), added.id, State::kActive);

  const std::vector<Event> log = history(*store, user("bo"), added.id);
  std::vector<std::string> operations;
  for (const Event& event : log) operations.push_back(event.operation);
  EXPECT_THAT(operations, ElementsAre("add", "update", "archive", "restore"));
  EXPECT_EQ(log[0].after->text, "Ann's daughter is called Mia");
  EXPECT_EQ(log[1].reason, "typo");
  EXPECT_LT(log[0].time, log[1].time);
  store->check();
}

TEST_P(StoreTest, NobodyReachesAnothersRecords) {
  const auto store = open();
  const std::string id = store->add(note("bo", "the safe opens with 4711")).id;
  Scope other_tenant = user("bo");
  other_tenant.tenant = "rival";
  for (const Scope& foreign : {user("eve"), other_tenant}) {
    const std::string missing = error_of([&] { store->get(foreign, id); });
    EXPECT_THAT(missing, HasSubstr("found none"));
    EXPECT_EQ(missing, error_of([&] { store->update(foreign, id, [](Record& r) { r.text = "x"; }); }));
    EXPECT_EQ(missing, error_of([&] { history(*store, foreign, id); }));
    EXPECT_EQ(missing, error_of([&] { erase(*store, foreign, std::vector{id}); }));
    EXPECT_THAT(search(*store, {.text = "safe opens", .scope = foreign}).hits, IsEmpty());
    EXPECT_THAT(records_as_of(*store, foreign, kLatestTime), IsEmpty());
    EXPECT_EQ(erase_user(*store, foreign).ids.size(), 0u);
  }
  // A change cannot move a record to another user, nor can metadata.
  store->update(user("bo"), id, [](Record& r) {
    r.scope.user = "eve";
    r.metadata = {{"user_id", "eve"}};
  });
  EXPECT_THAT(search(*store, {.text = "safe", .scope = user("eve")}).hits, IsEmpty());
  EXPECT_EQ(store->get(user("bo"), id).scope.user, "bo");
}

TEST_P(StoreTest, BadInputIsRefusedAndNothingStored) {
  const auto store = open();
  const auto refusal = [&](const std::function<void(Record&)>& change) {
    Record record = note("bo", "fine");
    change(record);
    return error_of([&] { store->add(std::vector{note("bo", "first"), record}); });
  };
  EXPECT_THAT(refusal([](Record& r) { r.text = "caf\xE9"; }), HasSubstr("text: expected valid UTF-8 (record 2 of 2)"));
  EXPECT_THAT(refusal([](Record& r) { r.text = std::string("a\0b", 3); }), HasSubstr("zero byte"));
  EXPECT_THAT(refusal([](Record& r) { r.text = " \n"; }), HasSubstr("expected text"));
  EXPECT_THAT(refusal([](Record& r) { r.text = std::string(10'000'000, 'a'); }), HasSubstr("1048576 bytes"));
  EXPECT_THAT(refusal([](Record& r) { r.confidence = std::nan(""); }), HasSubstr("confidence"));
  EXPECT_THAT(refusal([](Record& r) { r.importance = 1.5; }), HasSubstr("importance"));
  EXPECT_THAT(refusal([](Record& r) { r.scope.user = ""; }), HasSubstr("tenant and user"));
  EXPECT_THAT(refusal([](Record& r) { r.scope.tenant = std::string(kAllTenants); }), HasSubstr("control"));
  EXPECT_THAT(refusal([](Record& r) { r.event_time = INT64_MAX; }), HasSubstr("event time"));
  EXPECT_THAT(refusal([](Record& r) { r.valid_until = 5; }), HasSubstr("valid until"));
  EXPECT_THAT(refusal([](Record& r) { r.links = {{"about", "nobody"}}; }), HasSubstr("link"));
  EXPECT_THAT(refusal([](Record& r) { r.metadata = Json::array(); }), HasSubstr("metadata"));
  EXPECT_THAT(refusal([](Record& r) { r.kind = Kind::kAdapter; }), HasSubstr("pointer"));
  const std::vector<Record> one = {note("bo", "fine")};
  const auto vector_refusal = [&](std::vector<float> v) {
    return error_of([&] { store->add(one, std::vector<std::vector<float>>{v}); });
  };
  EXPECT_THAT(vector_refusal({1, std::nanf("")}), HasSubstr("finite"));
  EXPECT_THAT(vector_refusal({0, 0}), HasSubstr("zero"));
  EXPECT_THAT(vector_refusal({}), HasSubstr("1 to 65536"));
  EXPECT_EQ(store->stats("default").events, 0u);
  store->add(one, std::vector<std::vector<float>>{{3, 4}});
  EXPECT_THAT(error_of([&] {
                store->add(std::vector{note("bo", "x")}, std::vector<std::vector<float>>{{1, 2, 3}});
              }),
              HasSubstr("expected 2 numbers, found 3"));
  EXPECT_EQ(store->stats("default").active, 1u);
  store->check();
}

TEST_P(StoreTest, EveryFilterNarrows) {
  const auto store = open();
  const auto at = [](int day) { return 1'600'000'000'000'000 + day * kMicrosPerDay; };
  Record a = note("bo", "tea in the morning"), b = note("bo", "tea at noon"), c = note("bo", "tea at night");
  a.kind = Kind::kFact;
  a.scope.agent = "cook";
  a.speaker = "Ann";
  a.tags = {"drink", "100%_sure"};
  a.event_time = at(1);
  a.valid_until = at(5);
  a.metadata = {{"cups", 2}};
  b.scope.session = "s1";
  b.source = {"file", "notes/tea.md", {}};
  b.event_time = at(3);
  b.confidence = 0.4;
  b.tags = {"drink", "100 xsure"};
  c.event_time = at(9);
  c.importance = 0.9;
  c.expires_at = clock_.time + 3'600 * kMicrosPerSecond;
  store->add(std::vector{a, b, c});
  const auto found = [&](const std::function<void(Filter&)>& set) {
    Query query{.text = "tea", .scope = user("bo")};
    set(query.filter);
    std::string names;
    for (const Hit& hit : search(*store, query).hits) names += hit.record.text.back();
    std::sort(names.begin(), names.end());
    // The past must answer alike.
    query.as_of = clock_.time;
    std::string past;
    for (const Hit& hit : search(*store, query).hits) past += hit.record.text.back();
    std::sort(past.begin(), past.end());
    EXPECT_EQ(names, past);
    return names;
  };
  EXPECT_EQ(found([](Filter&) {}), "gnt");
  EXPECT_EQ(found([](Filter& f) { f.kinds = {Kind::kFact}; }), "g");
  EXPECT_EQ(found([](Filter& f) { f.agent = "cook"; }), "g");
  EXPECT_EQ(found([](Filter& f) { f.session = "s1"; }), "n");
  EXPECT_EQ(found([](Filter& f) { f.speaker = "Ann"; }), "g");
  EXPECT_EQ(found([](Filter& f) { f.tags = {"drink"}; }), "gn");
  EXPECT_EQ(found([](Filter& f) { f.tags = {"100%_sure", "drink"}; }), "g");
  EXPECT_EQ(found([](Filter& f) { f.source_type = "file"; }), "n");
  EXPECT_EQ(found([](Filter& f) { f.source_uri = "notes/"; }), "n");
  EXPECT_EQ(found([](Filter& f) { f.source_uri = "NOTES/"; }), "");
  EXPECT_EQ(found([&](Filter& f) { f.event_from = at(3); }), "nt");
  EXPECT_EQ(found([&](Filter& f) { f.event_before = at(3); }), "g");
  EXPECT_EQ(found([&](Filter& f) { f.recorded_before = at(1); }), "");
  EXPECT_EQ(found([&](Filter& f) { f.valid_at = at(6); }), "n");
  EXPECT_EQ(found([](Filter& f) { f.min_confidence = 0.5; }), "gt");
  EXPECT_EQ(found([](Filter& f) { f.min_importance = 0.6; }), "t");
  EXPECT_EQ(found([](Filter& f) { f.metadata = {{"cups", "2"}}; }), "g");
  EXPECT_EQ(found([](Filter& f) { f.states = {State::kArchived}; }), "");
  clock_.time += 7'200 * kMicrosPerSecond;
  EXPECT_EQ(found([](Filter&) {}), "gn");
  EXPECT_EQ(found([](Filter& f) { f.with_expired = true; }), "gnt");
  EXPECT_EQ(expired(*store, user("bo"), clock_.time).size(), 1u);
}

TEST_P(StoreTest, NothingInAQueryIsSyntax) {
  const auto store = open();
  store->add(note("bo", "the NEAR and the OR of it; DROP TABLE record"));
  store->add(note("bo", "unrelated words"));
  for (const char* text :
       {"\"", "'", "NEAR(", "a AND", "OR", "* ^ -", "text:near", "term MATCH 'x'", "near OR 1=1",
        "'; DROP TABLE record; --", "%", "_", "{}", "\\", "(((((", "NOT", "\u00df\u4e16\u754c", "$1 ?"}) {
    SCOPED_TRACE(text);
    EXPECT_NO_THROW(search(*store, {.text = text, .scope = user("bo")}));
    EXPECT_NO_THROW(search(*store, {.text = text, .scope = user(text)}));
    Query filtered{.text = "near", .scope = user("bo")};
    filtered.filter.speaker = filtered.filter.source_uri = text;
    filtered.filter.tags = {text};
    EXPECT_THAT(search(*store, filtered).hits, IsEmpty());
  }
  EXPECT_EQ(search(*store, {.text = "drop the table", .scope = user("bo")}).hits.size(), 1u);
  EXPECT_THAT(error_of([&] { search(*store, {.text = "\xFF", .scope = user("bo")}); }), HasSubstr("UTF-8"));
  EXPECT_EQ(search(*store, {.text = "", .scope = user("bo")}).hits.front().record.text, "unrelated words");
  store->check();
}

/// Embeds by the first letter of a text.
class LetterEmbedder final : public Embedder {
 public:
  const std::string& model() const override { return name_; }
  uint32_t dimension() const override { return 26; }
  std::vector<std::vector<float>> embed(std::span<const std::string> texts, Role) override {
    std::vector<std::vector<float>> vectors;
    for (const std::string& text : texts) {
      std::vector<float> v(26, 0.01f);
      v[static_cast<size_t>((text.front() | 32) - 'a')] = 1;
      vectors.push_back(v);
    }
    return vectors;
  }
  std::string name_ = "letters";
};

TEST_P(StoreTest, ChannelsAddUp) {
  LetterEmbedder embedder;
  const auto store = open(&embedder);
  Record louvre = note("bo", "Ann saw the Louvre");
  const std::string a = store->add(louvre).id;
  Record ticket = note("bo", "ticket price was nine euros");
  ticket.links = {{"about", a}};
  const std::string b = store->add(ticket).id;
  const std::string c = store->add(note("bo", "zebras sleep standing")).id;
  const SearchResult result = search(*store, {.text = "zoo trip to the Louvre", .scope = user("bo")});
  std::map<std::string, Candidate> why;
  for (const Hit& hit : result.hits) why[hit.record.id] = hit.why;
  ASSERT_EQ(why.size(), 3u);
  EXPECT_EQ(why[a].rank[0], 1u) << "words";
  EXPECT_EQ(why[a].rank[2], 1u) << "names";
  EXPECT_EQ(why[c].rank[1], 1u) << "vectors";
  EXPECT_GT(why[b].rank[3], 0u) << "links";
  // A new text has a new vector; another model is refused.
  store->update(user("bo"), c, [](Record& r) { r.text = "animals sleep"; });
  EXPECT_EQ(search(*store, {.text = "zz", .scope = user("bo")}).hits.size(), 3u);
  LetterEmbedder other;
  other.name_ = "other letters";
  EXPECT_THAT(error_of([&] { open(&other); }), HasSubstr("expected embeddings by letters"));
  store->check();
}

TEST_P(StoreTest, FillsTheBudgetWithDifferentThings) {
  const auto store = open();
  std::vector<Record> records;
  for (int i = 0; i < 8; ++i) records.push_back(note("bo", fmt::format("Mia plays chess on every day of week {}", i)));
  records.push_back(note("bo", "Mia won a chess cup"));
  records.push_back(note("bo", fmt::format("chess {}", std::string(3000, 'x'))));
  store->add(records);
  Query query{.text = "Mia chess week", .scope = user("bo"), .token_budget = 60};
  query.count_tokens = [](std::string_view text) { return text.size() / 4; };
  const SearchResult result = search(*store, query);
  uint64_t sum = 0;
  bool cup = false;
  for (const Hit& hit : result.hits) {
    sum += hit.tokens;
    cup |= hit.record.text.find("cup") != std::string::npos;
  }
  EXPECT_EQ(sum, result.tokens);
  EXPECT_LE(result.tokens, 60u);
  EXPECT_GT(result.tokens, 45u);
  EXPECT_GT(result.n_over_budget, 0u);
  EXPECT_TRUE(cup) << "diversity takes it before the eighth week";
}

/// Random changes; the log must give back every state that was, and a rollback bring it back.
TEST_P(StoreTest, AnyPastStateCanBeReadAndRestored) {
  const auto store = open();
  PhiloxStream random(5);
  std::vector<std::string> ids;
  std::vector<std::pair<Time, Json>> states;
  const auto state = [&](Time time) {
    Json all = Json::object();
    for (Record& record : records_as_of(*store, user("bo"), time)) {
      if (record.state != State::kActive) continue;
      all[record.id] = record.text;
    }
    return all;
  };
  std::map<std::string, std::string> active;
  for (int step = 0; step < 60; ++step) {
    const uint64_t choice = random.next_below(4);
    if (ids.empty() || choice == 0) {
      ids.push_back(store->add(note("bo", fmt::format("thing {}", step))).id);
      active[ids.back()] = fmt::format("thing {}", step);
    } else {
      const std::string& id = ids[random.next_below(ids.size())];
      if (choice == 1) {
        store->update(user("bo"), id, [&](Record& r) { r.text = fmt::format("changed {}", step); });
        if (active.contains(id)) active[id] = fmt::format("changed {}", step);
      } else if (choice == 2 && active.contains(id)) {
        store->set_state(user("bo"), id, State::kArchived);
        active.erase(id);
      } else if (choice == 3 && !active.contains(id)) {
        active[id] = store->set_state(user("bo"), id, State::kActive).text;
      }
    }
    Json now = Json::object();
    for (const auto& [id, text] : active) now[id] = text;
    states.emplace_back(clock_.time, now);
  }
  const auto sorted = [](const Json& json) { return SortedJson::parse(json.dump()); };
  for (const auto& [time, expected] : states) EXPECT_EQ(sorted(state(time)), sorted(expected));
  for (const size_t to : {size_t{40}, size_t{10}, size_t{55}}) {
    rollback(*store, user("bo"), states[to].first);
    EXPECT_EQ(sorted(state(clock_.time)), sorted(states[to].second));
    Json current = Json::object();
    store->for_each(user("bo"), std::vector{State::kActive}, [&](const Record& r) { current[r.id] = r.text; });
    EXPECT_EQ(sorted(current), sorted(states[to].second));
  }
  store->check();
}

TEST_P(StoreTest, TimeOfTheLogNeverGoesBack) {
  const auto store = open();
  const std::string id = store->add(note("bo", "before the jump")).id;
  clock_.time -= 86'400 * kMicrosPerSecond;
  store->update(user("bo"), id, [](Record& r) { r.text = "after the jump"; });
  const std::vector<Event> log = history(*store, user("bo"), id);
  EXPECT_GT(log[1].time, log[0].time);
  EXPECT_EQ(records_as_of(*store, user("bo"), log[0].time).front().text, "before the jump");
}

TEST_P(StoreTest, ErasureLeavesASignAndNothingElse) {
  const auto store = open();
  const std::string id = store->add(note("bo", "Ann has a rare illness")).id;
  Record summary = note("bo", "summary: health matters");
  summary.source.parents = {id};
  const std::string derived = store->add(summary).id;
  store->update(user("bo"), id, [](Record& r) { r.text = "Ann has a very rare illness"; });
  EXPECT_EQ(erase(*store, user("bo"), std::vector{id}, {.dry_run = true}).derived, std::vector{derived});
  const Erasure erasure = erase(*store, user("bo"), std::vector{id}, {.derived = true, .verify = true});
  EXPECT_THAT(erasure.ids, UnorderedElementsAre(id, derived));
  EXPECT_EQ(erasure.n_texts, 3u);
  EXPECT_THAT(search(*store, {.text = "rare illness health", .scope = user("bo")}).hits, IsEmpty());
  EXPECT_THAT(records_as_of(*store, user("bo"), clock_.time), IsEmpty());
  const std::vector<Event> log = history(*store, user("bo"), id);
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log.back().operation, "erase");
  for (const Event& event : log) EXPECT_FALSE(event.after.has_value());
  EXPECT_THAT(error_of([&] { store->get(user("bo"), id); }), HasSubstr("erased"));
  EXPECT_EQ(rollback(*store, user("bo"), kEarliestTime).erased, 2u);
  store->check();
  store->add(note("bo", "new life"));
  EXPECT_EQ(erase_user(*store, user("bo")).ids.size(), 1u);
  store->check();
}

/// 10,000 on either database with MNEME_SOAK_RUNS in the environment (scripts/soak-recall); fewer on a server
/// otherwise.
int n_foreign_queries(bool server) {
  if (std::getenv("MNEME_SOAK_RUNS") != nullptr) return 10'000;
  return server ? 100 : 1000;
}

/// Everyone asks for what others have, in all ways.
TEST_P(StoreTest, ForeignQueriesFindNothing) {
  const bool server = GetParam() == "postgres";
  const int n_users = server ? 8 : 50, n_queries = n_foreign_queries(server);
  const auto store = open();
  std::vector<Record> records;
  for (int u = 0; u < n_users; ++u) {
    for (int i = 0; i < 10; ++i) {
      records.push_back(note(fmt::format("user{}", u), fmt::format("secret{}x{} lives in Paris near the river", u, i)));
    }
  }
  store->add(records);
  PhiloxStream random(9);
  int leaks = 0, own = 0;
  for (int q = 0; q < n_queries; ++q) {
    const uint64_t me = random.next_below(n_users), other = random.next_below(n_users);
    Query query{.text = fmt::format("secret{}x{} Paris river", other, random.next_below(10))};
    query.scope = user(fmt::format("user{}", me));
    if (q % 7 == 0) query.text = fmt::format("{}' OR user_name = 'user{}", query.scope.user, other);
    if (q % 11 == 0) query.as_of = clock_.time;
    for (const Hit& hit : search(*store, query).hits) {
      const bool mine =
          hit.record.scope.user == query.scope.user && hit.record.text.starts_with(fmt::format("secret{}x", me));
      ++(mine ? own : leaks);
    }
  }
  EXPECT_EQ(leaks, 0);
  EXPECT_GT(own, n_queries);
}

TEST_P(StoreTest, ManyWritersLoseNothing) {
  open();
  std::vector<std::thread> threads;
  for (int w = 0; w < 4; ++w) {
    threads.emplace_back([&, w] {
      const auto store = Store::open(location_);
      std::string id = store->add(note("bo", fmt::format("writer {}", w))).id;
      for (int i = 0; i < 10; ++i) {
        store->add(note("bo", fmt::format("writer {} wrote {}", w, i)));
        store->update(user("bo"), id, [](Record& r) { r.metadata = {{"n", r.version}}; });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto store = open();
  EXPECT_EQ(store->stats("default").active, 44u);
  EXPECT_EQ(search(*store, {.text = "wrote", .scope = user("bo"), .k = 100}).n_candidates, 40u);
  store->check();
}

TEST_P(StoreTest, ANewerStoreIsRefused) {
  const auto store = open();
  set_meta(store->database(), "schema_version", "99");
  EXPECT_THAT(error_of([&] { open(); }), HasSubstr("found 99"));
  set_meta(store->database(), "schema_version", "many");
  EXPECT_THAT(error_of([&] { open(); }), HasSubstr("found 'many'"));
}

/// PostgreSQL itself keeps tenants apart, and comes back after a restart in the middle.
TEST(Postgres, IsolatesRowsAndSurvivesRestarts) {
  if (!PostgresServer::is_installed()) GTEST_SKIP() << "no PostgreSQL server (Debian package postgresql)";
  PostgresServer& server = PostgresServer::shared();
  const auto store = Store::open(server.new_database());
  Record record = note("bo", "only for t1");
  record.scope.tenant = "t1";
  store->add(record);
  for (const char* table : {"scope", "event", "record"}) {
    const auto count = [&](const std::string& tenant) {
      int64_t n = -1;
      store->database().transaction(Database::Access::kRead, [&] {
        if (!tenant.empty()) store->database().restrict_to_tenant(tenant);
        n = store->database().integer(fmt::format("SELECT COUNT(*) FROM {}", table), {});
      });
      return n;
    };
    EXPECT_EQ(count("t1"), 1) << table;
    EXPECT_EQ(count("t2"), 0) << table;
    EXPECT_EQ(count(""), 0) << table << " without a tenant";
  }
  bool restarted = false;
  store->write(record.scope, [&](Time) {
    // The first try loses its connection in the middle; the second is whole.
    store->database().execute("UPDATE scope SET user_name = user_name || '!'");
    if (!std::exchange(restarted, true)) {
      server.stop();
      server.start();
      store->database().execute("SELECT 1");
    }
  });
  record.scope.user = "bo!";
  int64_t scope = 0;
  store->read(record.scope, [&] { scope = store->scope_number(record.scope); });
  EXPECT_GT(scope, 0) << "changed exactly once";
  record.text = "after the restart";
  EXPECT_TRUE(store->add(record).is_new);
}

}  // namespace
}  // namespace mneme::recall
