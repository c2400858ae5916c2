#include "recall/import/import.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/test_error.h"
#include "recall/import/chunk.h"
#include "recall/search/search.h"
#include "recall/test_stores.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

using ::testing::HasSubstr;

std::string without_blanks(std::string text) {
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; });
  return text;
}

TEST(Chunk, LosesNothingAndKeepsToTheLimit) {
  std::string text = "# Guide\n\nFirst. Second one!\n\n## Setup\n\n";
  for (int i = 0; i < 400; ++i) text += fmt::format("Sentence {} has some words. ", i);
  text += "\n\n```\n# no heading\n\nx = 1\n```\n\n" + std::string(5000, 'a') + "\n\n";
  for (int i = 0; i < 2000; ++i) text += "\xE4\xB8\x96";
  std::string joined;
  const std::vector<Chunk> chunks = chunk_text(text, false, 500);
  for (const Chunk& chunk : chunks) {
    EXPECT_LE(chunk.text.size(), 500u);
    joined += chunk.text;
  }
  EXPECT_EQ(without_blanks(joined), without_blanks(text));
  const std::vector<Chunk> parts = chunk_text(text, true, 500);
  EXPECT_EQ(parts[0].heading, "Guide");
  EXPECT_EQ(parts[1].heading, "Guide > Setup");
  EXPECT_EQ(parts.back().heading, "Guide > Setup") << "code is no heading";
  EXPECT_TRUE(chunk_text(" \n\n ", true).empty());
}

TEST(Import, ReadsChats) {
  const ImportSource source{"chat.jsonl", user("bo"), false, 5};
  const Imported flat = parse_import(
      R"({"role": "system", "content": "be nice"}
{"role": "user", "name": "Ann", "content": "My daughter is Mia", "timestamp": 1700000000, "session_id": 7}

{"role": "assistant", "content": [{"type": "text", "text": "Nice"}, {"type": "image"}, {"type": "text", "text": "name"}], "timestamp": "2023-11-14T22:13:21Z", "session_id": 7}
{"role": "user", "content": null})",
      ImportFormat::kChat, source);
  ASSERT_EQ(flat.records.size(), 2u);
  EXPECT_EQ(flat.skipped, 2u);
  EXPECT_EQ(flat.records[0].speaker, "Ann");
  EXPECT_EQ(flat.records[0].event_time, 1'700'000'000'000'000);
  EXPECT_EQ(flat.records[1].event_time, 1'700'000'001'000'000);
  EXPECT_EQ(flat.records[1].text, "Nice\nname");
  EXPECT_EQ(flat.records[1].scope.session, "7");
  EXPECT_EQ(flat.records[1].links, (std::vector<Link>{{"follows", flat.records[0].id}}));
  const Imported nested =
      parse_import(R"({"id": "c1", "messages": [{"role": "user", "content": "a", "created_at": 1700000000123.0}]})",
                   ImportFormat::kChat, source);
  EXPECT_EQ(nested.records.at(0).event_time, 1'700'000'000'123'000);
  EXPECT_EQ(nested.records.at(0).scope.session, "c1");
  const auto refusal = [&](const char* text) {
    return error_of([&] { parse_import(text, ImportFormat::kChat, source); });
  };
  EXPECT_THAT(refusal("{\"role\": \"user\", \"content\": \"a\"}\n[1]"),
              HasSubstr("chat.jsonl:2: expected a JSON object"));
  EXPECT_THAT(refusal("{\"role\": "), HasSubstr("chat.jsonl:1"));
  EXPECT_THAT(refusal("{\"text\": 1}"), HasSubstr("'messages'"));
  EXPECT_THAT(refusal(R"({"role": "user", "content": "a", "timestamp": -1e300})"), HasSubstr("expected a time"));
  EXPECT_THAT(refusal("\xFF"), HasSubstr("UTF-8"));
}

TEST(Import, Mem0CannotChooseAnOwnerInMetadata) {
  const char* text = R"({"results": [
    {"id": "u1", "memory": "Likes tea", "user_id": "ann", "created_at": "2025-03-01T10:00:00.123-07:00",
     "categories": ["food"], "metadata": {"user_id": "eve", "tenant": "x", "mood": "good"}, "expiration_date": "2030-01-01"},
    {"id": "u2", "memory": " "}]})";
  const Imported kept = parse_import(text, ImportFormat::kMem0, {"m.json", user("bo"), true, 5});
  ASSERT_EQ(kept.records.size(), 1u);
  EXPECT_EQ(kept.skipped, 1u);
  const Record& tea = kept.records[0];
  EXPECT_EQ(tea.scope.user, "ann");
  EXPECT_EQ(tea.metadata, (Json{{"mood", "good"}}));
  EXPECT_EQ(format_time(tea.event_time), "2025-03-01T17:00:00.123000Z");
  EXPECT_EQ(format_time(*tea.expires_at), "2030-01-01T00:00:00Z");
  EXPECT_EQ(parse_import(text, ImportFormat::kMem0, {"m.json", user("bo"), false, 5}).records[0].scope.user, "bo");
  EXPECT_THAT(error_of([] {
                parse_import("{\"x\": 1}", ImportFormat::kMem0, {"m.json", user("bo"), false, 5});
              }),
              HasSubstr("expected a list of memories"));
}

TEST(Import, TakesFoldersAndCanBeRepeated) {
  TestFolder folder;
  std::filesystem::create_directories(folder.file("in/deep"));
  std::ofstream(folder.file("in/deep/guide.md")) << "# Tea\n\nBoil water.\n\n# Cake\n\nMix flour.";
  std::ofstream(folder.file("in/notes.txt")) << "Plain words.";
  std::ofstream(folder.file("in/chat.jsonl")) << R"({"role": "user", "content": "hello"})";
  std::ofstream(folder.file("in/graph.jsonl"))
      << R"({"type": "entity", "name": "Ann", "entityType": "person", "observations": ["likes tea"]})"
         "\n"
      << R"({"type": "relation", "from": "Ann", "to": "Mia", "relationType": "mother of"})";
  std::ofstream(folder.file("in/picture.png")) << "no text";
  const auto store = Store::open(folder.file("memory.db"));
  const auto run = [&] {
    return import_path(*store, folder.file("in"), {user("bo"), false, {}}, [](const std::string&) {});
  };
  const ImportReport first = run();
  EXPECT_EQ(first.files, 4u);
  EXPECT_EQ(first.added, 6u);
  EXPECT_EQ(run().known, 6u);
  Query query;
  query.text = "flour";
  query.scope = user("bo");
  const SearchResult result = search(*store, query);
  ASSERT_EQ(result.hits.size(), 2u);
  EXPECT_EQ(result.hits[0].record.metadata["heading"], "Cake");
  EXPECT_EQ(result.hits[1].record.text, "Boil water.") << "the piece before it is its neighbour";
  store->check();
}

TEST(TimeText, ReadsWhatItWritesAndRefusesTheRest) {
  for (const Time time : {Time{0}, Time{-1}, Time{1'700'000'000'123'456}, kEarliestTime, kLatestTime}) {
    EXPECT_EQ(parse_time(format_time(time)), time);
  }
  EXPECT_EQ(format_time(parse_time("1:56 pm on 8 May, 2023")), "2023-05-08T13:56:00Z");
  EXPECT_EQ(format_time(parse_time("12:05 am on 29 February, 2024")), "2024-02-29T00:05:00Z");
  EXPECT_EQ(format_time(parse_time("2024-02-29 23:30+02:00")), "2024-02-29T21:30:00Z");
  for (const char* bad :
       {"", "2023-02-29", "2023-13-01", "2023-1-1", "2023-01-01T24:00", "2023-01-01T10", "2023-01-01T10:00:60",
        "2023-01-01T10:00Zx", "@", "@1e9", "@99999999999999999999", "13:00 pm on 8 May, 2023", "yesterday"}) {
    EXPECT_THAT(error_of([&] { parse_time(bad); }), HasSubstr("expected a time")) << bad;
  }
  EXPECT_EQ(parse_duration("2w"), 14 * kMicrosPerDay);
  for (const char* bad : {"", "5", "d", "-1d", "999999999999w", "1.5h"}) {
    EXPECT_THAT(error_of([&] { parse_duration(bad); }), HasSubstr("expected a time")) << bad;
  }
}

}  // namespace
}  // namespace mneme::recall
