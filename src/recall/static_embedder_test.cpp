#include "recall/static_embedder.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "recall/search/search.h"
#include "recall/test_stores.h"
#include "recall/word_vectors.h"

namespace mneme::recall {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;

/// Sentences about six topics, each with words of its own: the sea, a farm, and four that are made up.
std::string six_topics(uint64_t seed) {
  const std::vector<std::vector<std::string>> topics = {
      {"boat", "sail", "harbour", "captain", "wave", "anchor", "fish", "sailor"},
      {"cow", "barn", "plough", "farmer", "field", "harvest", "wheat", "tractor"}};
  PhiloxStream random(seed);
  std::string text;
  for (int i = 0; i < 6000; ++i) {
    const size_t topic = random.next_below(6);
    for (int k = 0; k < 6; ++k) {
      const size_t word = random.next_below(topic < 2 ? 8 : 40);
      text += (topic < 2 ? topics[topic][word] : fmt::format("w{}q{}", topic, word)) + " ";
    }
    // Words that every sentence may have.
    for (int k = 0; k < 2; ++k) text += fmt::format("filler{} ", random.next_below(60));
  }
  return text;
}

WordVectorOptions small_options() {
  WordVectorOptions options;
  options.dimension = 32;
  options.min_count = 3;
  options.n_grams = 512;
  return options;
}

float cosine(const std::vector<float>& a, const std::vector<float>& b) {
  float ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

void write_file(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

class StaticEmbedderTest : public testing::Test {
 protected:
  std::string train(const std::string& name, uint64_t seed = 1) {
    WordVectorTrainer trainer(small_options());
    trainer.add(six_topics(seed));
    const std::string path = folder_.file(name);
    write_word_vectors(trainer.train([](const char*) {}), path, "a test");
    return path;
  }
  TestFolder folder_;
};

TEST_F(StaticEmbedderTest, WordsOfATopicAreAlike) {
  StaticEmbedder embedder(train("a.gguf"));
  EXPECT_EQ(embedder.dimension(), 32u);
  const std::vector<std::string> texts = {
      "the captain and the anchor", "a sailor on a wave", "the farmer and his cow", "?", "", "boats"};
  const auto v = embedder.embed(texts, Embedder::Role::kPassage);
  EXPECT_GT(cosine(v[0], v[1]), 0.5F);
  EXPECT_LT(cosine(v[0], v[2]), 0.1F);
  EXPECT_EQ(v[3], v[4]);
  EXPECT_NEAR(cosine(v[3], v[0]), 0, 1e-3) << "a text without words is like no text";
  const auto near = embedder.nearest("boat", 6);
  EXPECT_EQ(near[0].first, "boat");
  EXPECT_THAT(near, Contains(Key("harbour")));
  EXPECT_THAT(near, ::testing::Not(Contains(Key("cow"))));
  // A word that was not seen, by its pieces.
  EXPECT_GT(cosine(embedder.word("sailorly"), embedder.word("sailor")), 0.4F);
}

TEST_F(StaticEmbedderTest, WordsCountByTheirWeights) {
  WordVectorTrainer trainer(small_options());
  trainer.add(six_topics(1));
  WordVectors vectors = trainer.train([](const char*) {});
  const auto cow = std::find(vectors.words.begin(), vectors.words.end(), "cow");
  ASSERT_NE(cow, vectors.words.end());
  float& weight = vectors.weights[static_cast<size_t>(cow - vectors.words.begin())];
  const float learnt = weight;
  const auto likeness = [&](float factor) {
    weight = learnt * factor;
    write_word_vectors(vectors, folder_.file("weighed.gguf"), "a test");
    StaticEmbedder embedder(folder_.file("weighed.gguf"));
    const auto v = embedder.embed(std::vector<std::string>{"boat cow", "boat"}, Embedder::Role::kPassage);
    return cosine(v[0], v[1]);
  };
  EXPECT_GT(likeness(0.01F), 0.99F);
  EXPECT_LT(likeness(100), 0.2F);
}

TEST_F(StaticEmbedderTest, TheSameTextsGiveTheSameFile) {
  const std::string a = read_text_file(train("a.gguf")), b = read_text_file(train("b.gguf")),
                    c = read_text_file(train("c.gguf", 2));
  EXPECT_TRUE(a == b);
  EXPECT_FALSE(a == c);
  EXPECT_EQ(StaticEmbedder(folder_.file("a.gguf")).model(), StaticEmbedder(folder_.file("b.gguf")).model());
  EXPECT_NE(StaticEmbedder(folder_.file("a.gguf")).model(), StaticEmbedder(folder_.file("c.gguf")).model());
}

TEST_F(StaticEmbedderTest, RefusesWhatIsNone) {
  WordVectorTrainer trainer(small_options());
  trainer.add("too little to learn from");
  EXPECT_THAT(error_of([&] { trainer.train([](const char*) {}); }), HasSubstr("expected 192 words"));
  const std::string path = train("a.gguf");
  std::string bytes = read_text_file(path);
  const auto broken = [&](const std::string& from, const std::string& to) {
    std::string changed = bytes;
    const size_t at = changed.find(from);
    EXPECT_NE(at, changed.npos) << from;
    changed.replace(at, from.size(), to);
    write_file(folder_.file("broken.gguf"), changed);
    return error_of([&] { StaticEmbedder embedder(folder_.file("broken.gguf")); });
  };
  EXPECT_THAT(broken("mneme-word-vectors", "mneme-word-factors"), HasSubstr("expected architecture"));
  EXPECT_THAT(broken("words.weight", "words.height"), HasSubstr("expected tensor words.weight, found none"));
  EXPECT_FALSE(error_of([&] {
                 write_file(folder_.file("cut.gguf"), bytes.substr(0, bytes.size() / 2));
                 StaticEmbedder embedder(folder_.file("cut.gguf"));
               }).empty());
}

TEST_F(StaticEmbedderTest, MakesAStoreSearchableByMeaning) {
  StaticEmbedder embedder(train("a.gguf"));
  StoreOptions options;
  options.embedder = &embedder;
  const auto store = Store::open(folder_.file("memory.db"), options);
  store->add(
      std::vector<Record>{note("bo", "the captain and the anchor"), note("bo", "wheat in the barn"), note("bo", "?!")});
  const SearchResult result = search(*store, {.text = "a sailor in the harbour", .scope = user("bo"), .k = 1});
  ASSERT_EQ(result.hits.size(), 1u);
  EXPECT_EQ(result.hits[0].record.text, "the captain and the anchor");
}

}  // namespace
}  // namespace mneme::recall
