#include "mneme/memory.h"

#include "recall/test_stores.h"

namespace mneme {
namespace {

TEST(Memory, RemembersRecallsAndForgets) {
  recall::TestFolder folder;
  Memory memory(folder.file("memory.db"));
  const std::string id = memory.remember({"bo"}, "Ann's daughter is called Mia", {"family"});
  EXPECT_EQ(memory.remember({"bo"}, "Ann's daughter is called Mia"), id);
  const std::vector<Memory::Found> found = memory.recall({"bo"}, "who is the daughter of Ann?");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].id, id);
  EXPECT_EQ(found[0].tags, std::vector<std::string>{"family"});
  EXPECT_TRUE(memory.recall({"eve"}, "daughter").empty());
  memory.forget({"bo"}, {id});
  EXPECT_TRUE(memory.recall({"bo"}, "daughter").empty());
}

}  // namespace
}  // namespace mneme
