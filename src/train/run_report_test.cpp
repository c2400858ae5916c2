#include "train/run_report.h"

#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/run_log.h"
#include "weights/gguf_test_bytes.h"

namespace mneme::train {
namespace {

constexpr const char* kStart =
    R"({"event":"start","step":0,"name":"tiny <1>","parameters":1000,"optimizer":"adamw","plan":"weights 4 KiB","bytes":{"weights":4096}})"
    "\n";

std::string step_line(int step, double loss) {
  return R"({"event":"step","step":)" + std::to_string(step) + R"(,"tokens":)" + std::to_string(100 * step) +
         R"(,"loss":)" + std::to_string(loss) + R"(,"loss_average":)" + std::to_string(loss) +
         R"(,"gradient_norm":1,"rate":0.001,"seconds":0.5,"resident_bytes":1048576})"
         "\n";
}

TEST(RunReport, ShowsTotalsPlotsAndRecipe) {
  const TestFolder folder;
  std::string log = kStart;
  for (int i = 1; i <= 10; ++i) log += step_line(i, 5.0 / i);
  log +=
      R"({"event":"eval","step":10,"text_loss":3.5,"recall":[{"distance":100,"value":0.5,"refusal":1.0}],"sample":"Once."})"
      "\n";
  folder.write("log.jsonl", log);
  folder.write("recipe.toml", "[run]\nname = \"tiny\"\n");
  const std::string page = run_report(folder.path());
  for (const char* part : {"Training of tiny &lt;1&gt;", "<td>steps</td><td>10</td>", "0.1 minutes", "4.00 KiB",
                           "Training loss", "100 tokens", "Once.", "name = &quot;tiny&quot;"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(page.find("http"), std::string::npos) << "the page must not load anything";
}

TEST(RunReport, StepsTrainedTwiceCountOnceAndAnUnfinishedLineIsLeftOut) {
  const TestFolder folder;
  std::string log = kStart;
  for (int i = 1; i <= 6; ++i) log += step_line(i, 1);
  log += R"({"event":"start","step":4,"name":"tiny"})"
         "\n";
  log += step_line(5, 1) + R"({"event":"step","st)";
  folder.write("log.jsonl", log);
  const std::string page = run_report(folder.path());
  EXPECT_NE(page.find("<td>steps</td><td>5</td>"), std::string::npos);
  EXPECT_NE(page.find("<td>time in steps</td><td>0.0 minutes</td>"), std::string::npos)
      << "five steps of half a second";
  EXPECT_NE(page.find("resumed"), std::string::npos);
}

TEST(RunLog, ALineThatWasCutIsDroppedBeforeTheNext) {
  const TestFolder folder;
  const std::string path = folder.write("log.jsonl", "{\"a\":1}\n{\"b\":");
  {
    RunLog log(path);
    log.write({{"c", 2}});
  }
  EXPECT_EQ(read_text_file(path), "{\"a\":1}\n{\"c\":2}\n");
}

TEST(RunReport, RefusesWhatIsNoRun) {
  const TestFolder folder;
  EXPECT_THROW(run_report(folder.path()), Error);
  for (const char* bad : {"nonsense\n", "[]\n", "{\"event\":\"step\"}\n"}) {
    folder.write("log.jsonl", std::string(kStart) + bad);
    try {
      run_report(folder.path());
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("line 2"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace mneme::train
