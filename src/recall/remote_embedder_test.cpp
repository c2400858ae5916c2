#include "recall/remote_embedder.h"

#include <gmock/gmock.h>
#include <httplib.h>

#include <mutex>
#include <thread>

#include "base/json.h"
#include "base/test_error.h"
#include "recall/open_embedder.h"
#include "recall/search/search.h"
#include "recall/test_stores.h"

namespace mneme::recall {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A server of embeddings on loopback: a text becomes (its length, 1, its first byte).
class EmbeddingServer {
 public:
  EmbeddingServer() {
    ::setenv("no_proxy", "127.0.0.1", 1);
    server_.Post("/v1/embeddings", [this](const httplib::Request& request, httplib::Response& response) {
      const std::lock_guard hold(mutex_);
      const Json json = Json::parse(request.body);
      const std::string key = request.get_header_value("Authorization");
      batches.push_back(json["input"].size());
      keys.push_back(key);
      models.push_back(json["model"]);
      if (refusals > 0) {
        --refusals;
        response.status = refusal_status;
        if (!retry_after.empty()) response.set_header("Retry-After", retry_after);
        response.set_content(R"({"error": {"message": "come back later", "type": "x"}})", "application/json");
        return;
      }
      if (!answer.empty() && batches.size() > 1) {  // the first request asks for the dimension
        response.set_content(answer, "application/json");
        return;
      }
      Json data = Json::array();
      size_t index = 0;
      for (const Json& text : json["input"]) {
        const std::string t = text;
        data.push_back({{"object", "embedding"}, {"index", index++}, {"embedding", {t.size(), 1, t[0]}}});
      }
      if (backwards) std::reverse(data.begin(), data.end());
      response.set_content(Json{{"object", "list"}, {"data", data}}.dump(), "application/json");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~EmbeddingServer() {
    server_.stop();
    thread_.join();
  }
  std::string name() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1#tiny"; }

  int refusals = 0, refusal_status = 503;
  std::string retry_after, answer;
  bool backwards = false;
  std::vector<size_t> batches;
  std::vector<std::string> keys, models;

 private:
  httplib::Server server_;
  std::mutex mutex_;
  int port_ = 0;
  std::thread thread_;
};

RemoteEmbedderOptions patient(std::vector<int>* waits = nullptr) {
  RemoteEmbedderOptions options;
  options.wait = [waits](int ms) {
    if (waits != nullptr) waits->push_back(ms);
  };
  return options;
}

TEST(RemoteEmbedder, SendsBatchesAndPutsAnswersInOrder) {
  EmbeddingServer server;
  server.backwards = true;
  RemoteEmbedderOptions options = patient();
  options.most_texts = 3;
  options.most_bytes = 20;
  options.key = "secret";
  RemoteEmbedder embedder(server.name(), options);
  EXPECT_EQ(embedder.dimension(), 3u);
  EXPECT_EQ(embedder.model(), server.name());
  const std::vector<std::string> texts = {"a", "bb", "ccc", "dddd", std::string(30, 'e'), "", "f"};
  const auto vectors = embedder.embed(texts, Embedder::Role::kPassage);
  ASSERT_EQ(vectors.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string sent = texts[i].empty() ? " " : texts[i];
    EXPECT_THAT(vectors[i], ElementsAre(static_cast<float>(sent.size()), 1.0f, static_cast<float>(sent[0]))) << i;
  }
  // The dimension; three by number; one, since the next is long; the long one; the rest.
  EXPECT_THAT(server.batches, ElementsAre(1u, 3u, 1u, 1u, 2u));
  EXPECT_THAT(server.keys, testing::Each(std::string("Bearer secret")));
  EXPECT_THAT(server.models, testing::Each(std::string("tiny")));
}

TEST(RemoteEmbedder, ComesBackAfterRefusalsThatMayPass) {
  EmbeddingServer server;
  std::vector<int> waits;
  RemoteEmbedder embedder(server.name(), patient(&waits));
  const std::vector<std::string> text = {"abc"};
  server.refusals = 3;
  EXPECT_EQ(embedder.embed(text, Embedder::Role::kQuery).size(), 1u);
  EXPECT_THAT(waits, ElementsAre(500, 1000, 2000));
  waits.clear();
  server.refusals = 1;
  server.refusal_status = 429;
  server.retry_after = "7";
  EXPECT_EQ(embedder.embed(text, Embedder::Role::kQuery).size(), 1u);
  EXPECT_THAT(waits, ElementsAre(7000));
  server.retry_after = "99999999999";
  server.refusals = 100;
  waits.clear();
  const std::string error = error_of([&] { embedder.embed(text, Embedder::Role::kQuery); });
  EXPECT_THAT(error, HasSubstr("found 429: come back later (5 attempts)"));
  EXPECT_THAT(waits, ElementsAre(30'000, 30'000, 30'000, 30'000));
}

TEST(RemoteEmbedder, DoesNotRepeatWhatStaysRefused) {
  EmbeddingServer server;
  RemoteEmbedder embedder(server.name(), patient());
  server.refusals = 1;
  server.refusal_status = 401;
  EXPECT_THAT(error_of([&] { embedder.embed(std::vector<std::string>{"a"}, Embedder::Role::kQuery); }),
              HasSubstr("found 401: come back later"));
  EXPECT_EQ(server.batches.size(), 2u);
}

TEST(RemoteEmbedder, RefusesMalformedAnswers) {
  const auto error_for = [](const std::string& answer) {
    EmbeddingServer server;
    RemoteEmbedder embedder(server.name(), patient());
    server.answer = answer;
    return error_of([&] { embedder.embed(std::vector<std::string>{"a", "b"}, Embedder::Role::kPassage); });
  };
  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"data": [)" + first + ", " + second + "]}";
  };
  const std::string good = R"({"index": 1, "embedding": [1, 2, 3]})";
  EXPECT_EQ(error_for(two(R"({"index": 0, "embedding": [1, 2, 3.5]})", good)), "no error");
  EXPECT_THAT(error_for("not JSON"), HasSubstr("/v1/embeddings"));
  EXPECT_THAT(error_for("[]"), HasSubstr("\"data\""));
  EXPECT_THAT(error_for(R"({"data": {}})"), HasSubstr("\"data\""));
  EXPECT_THAT(error_for(R"({"data": []})"), HasSubstr("expected 2 vectors, found 0"));
  EXPECT_THAT(error_for(R"({"data": [)" + good + "]}"), HasSubstr("expected 2 vectors, found 1"));
  EXPECT_THAT(error_for(two(good, good)), HasSubstr("1 twice"));
  EXPECT_THAT(error_for(two(good, R"({"index": 2, "embedding": [1, 2, 3]})")), HasSubstr("below 2, found 2"));
  EXPECT_THAT(error_for(two(good, R"({"index": -1, "embedding": [1, 2, 3]})")), HasSubstr("\"index\""));
  EXPECT_THAT(error_for(two(good, R"({"embedding": [1, 2, 3]})")), HasSubstr("\"index\""));
  EXPECT_THAT(error_for(two(good, R"({"index": 0, "embedding": "AAAA"})")), HasSubstr("\"embedding\""));
  EXPECT_THAT(error_for(two(good, R"({"index": 0, "embedding": [1, 2]})")), HasSubstr("expected 3 numbers, found 2"));
  EXPECT_THAT(error_for(two(good, R"({"index": 0, "embedding": []})")), HasSubstr("expected 3 numbers, found 0"));
  EXPECT_THAT(error_for(two(good, R"({"index": 0, "embedding": [1, 2, null]})")), HasSubstr("finite"));
  EXPECT_THAT(error_for(two(good, R"({"index": 0, "embedding": [1, 2, 1e40]})")), HasSubstr("finite"));
  EXPECT_THAT(error_for(two(good, R"({"index": 0, "embedding": [0, 0, 0]})")), HasSubstr("zeros"));
  EXPECT_NE(error_for(two(good, R"({"index": 0, "embedding": [1, 2, 1e999]})")), "no error");
}

TEST(RemoteEmbedder, RefusesNamesThatCannotWork) {
  const auto error_for = [](const std::string& name, const std::string& key = "") {
    RemoteEmbedderOptions options = patient();
    options.key = key;
    options.attempts = 1;
    return error_of([&] { RemoteEmbedder embedder(name, options); });
  };
  EXPECT_THAT(error_for("http://127.0.0.1:1/v1"), HasSubstr("#MODEL"));
  EXPECT_THAT(error_for("http://127.0.0.1:1/v1#"), HasSubstr("#MODEL"));
  EXPECT_THAT(error_for("https:///v1#m"), HasSubstr("host"));
  EXPECT_THAT(error_for("https://me:secret@host/v1#m"), HasSubstr("password"));
  EXPECT_THAT(error_for("http://host/v1?x#m"), HasSubstr("query"));
  EXPECT_THAT(error_for("http://example.org/v1#m", "key"), HasSubstr("https"));
  EXPECT_THAT(error_for("https://example.org/v1#m", "a\r\nX: b"), HasSubstr("one line"));
  EXPECT_THAT(error_for("http://127.0.0.1:1/v1#m", "key"), HasSubstr("127.0.0.1:1"));  // nobody listens
}

TEST(RemoteEmbedder, ServesAStore) {
  EmbeddingServer server;
  Ledger ledger;
  const std::unique_ptr<Embedder> embedder = open_embedder(server.name(), ledger);
  TestFolder folder;
  StoreOptions options;
  options.embedder = embedder.get();
  const auto store = Store::open(folder.file("memory.db"), options);
  store->add(note("bo", "abc"));
  store->add(note("bo", "a text with many more characters than that"));
  Query query;
  query.text = "axy";
  query.scope = user("bo");
  query.diversity = 0;
  const SearchResult result = search(*store, query);
  ASSERT_EQ(result.hits.size(), 2u);
  EXPECT_EQ(result.hits[0].record.text, "abc");
  EXPECT_EQ(store->embedding().model, server.name());
}

}  // namespace
}  // namespace mneme::recall
