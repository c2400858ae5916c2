#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/parallel.h"
#include "train/export_gguf.h"
#include "train/finished_run.h"
#include "train/sampler.h"
#include "weights/gguf_reader.h"

namespace mneme::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kRecipe = R"(
[run]
micro_batch_tokens = 256
checkpoint_minutes = 1000
keep_checkpoints = 2
[model]
width = 32
layers = 2
heads = 2
ffn_width = 32
context = 256
products = "f32"
[tokenizer]
size = 500
sample_chars = 40000
[data]
books = "BOOKS"
[optimizer]
kind = "muon"
rate = 5e-3
warmup_steps = 2
steps = 6
decay_steps = 2
[eval]
every_steps = 3
probes = 4
distances = [60]
[[stage]]
until_step = 6
sequence_tokens = 128
batch_tokens = 512
)";

class TrainerTest : public testing::Test {
 protected:
  void SetUp() override {
    // One folder a test, so that tests may run at the same time.
    folder_ = fs::temp_directory_path() /
              ("mneme_trainer_test_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "books");
    AtomicFile book((folder_ / "books" / "a.txt").string());
    for (int i = 0; i < 40; ++i) {
      book.write("The sailor number " + std::to_string(i) +
                 " went to sea and saw a whale. He came home in winter and told the tale.\n\n");
    }
    book.commit();
    recipe_ = kRecipe;
    recipe_.replace(recipe_.find("BOOKS"), 5, (folder_ / "books").string());
    set_n_threads(1);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<Trainer> make(Ledger& ledger, const std::string& name, bool resume,
                                Trainer::Callbacks callbacks = {}) {
    return std::make_unique<Trainer>(ledger, parse_recipe(recipe_, "test"), recipe_, (folder_ / name).string(), resume,
                                     std::move(callbacks));
  }

  static std::vector<float> weights_of(Trainer& trainer) {
    std::vector<float> all;
    for (const auto& p : trainer.model().parameters().all()) all.insert(all.end(), p.value, p.value + p.size());
    return all;
  }

  fs::path folder_;
  std::string recipe_;
};

TEST_F(TrainerTest, StoppedAndResumedRunEndsWithTheSameBits) {
  Ledger ledger;
  const auto whole = make(ledger, "whole", false);
  EXPECT_TRUE(whole->run());
  EXPECT_EQ(whole->progression().step, 6u);

  Trainer::Callbacks callbacks;
  uint64_t seen = 0;
  callbacks.step = [&](const StepReport& report) { seen = report.step; };
  callbacks.stop = [&] { return seen == 4; };
  {
    const auto first = make(ledger, "cut", false, callbacks);
    EXPECT_FALSE(first->run());
  }
  const auto second = make(ledger, "cut", true);
  EXPECT_EQ(second->progression().step, 4u);
  EXPECT_TRUE(second->run());
  EXPECT_EQ(weights_of(*whole), weights_of(*second));
  EXPECT_TRUE(fs::exists(folder_ / "cut" / "metrics.json"));

  std::ifstream log(folder_ / "cut" / "log.jsonl");
  size_t steps = 0, evals = 0;
  for (std::string line; std::getline(log, line);) {
    const Json event = parse_json(line, "log");
    steps += event["event"] == "step";
    if (event["event"] == "eval") {
      ++evals;
      EXPECT_TRUE(event["recall"].size() == 1 && event["text_loss"].get<double>() > 0);
    }
  }
  EXPECT_EQ(steps, 6u);
  EXPECT_EQ(evals, 2u);
}

/// As in the shipped recipes: two threads, bf16 products, and a context below the micro-batch, so that evaluation has
/// to cut what it fills batches with.
TEST_F(TrainerTest, TwoThreadsAndShortContextRepeatTheirBits) {
  set_n_threads(2);
  recipe_.replace(recipe_.find("context = 256"), 13, "context = 128");
  recipe_.replace(recipe_.find("\"f32\""), 5, "\"bf16\"");
  std::vector<float> weights;
  for (const char* name : {"one", "two"}) {
    Ledger ledger;
    const auto trainer = make(ledger, name, false);
    EXPECT_TRUE(trainer->run());
    if (weights.empty()) weights = weights_of(*trainer);
    EXPECT_EQ(weights, weights_of(*trainer));
  }
}

/// Every kind of optimiser resumes with the same bits: all of its state is in the checkpoint.
TEST_F(TrainerTest, EveryOptimizerResumesWithTheSameBits) {
  recipe_.replace(recipe_.find("every_steps = 3"), 15, "every_steps = 0");
  const std::string base = recipe_;
  for (const std::string kind : {"sgd", "adamw", "adamw8", "adafactor", "galore", "natural-galore"}) {
    recipe_ = base;
    std::string keys = "kind = \"" + kind + "\"";
    if (kind == "adafactor") keys += "\nbeta1 = 0.9";
    // Subspaces change at steps 0, 2 and 4; the run is cut between two changes.
    if (kind.ends_with("galore")) keys += "\nrank = 6\nupdate_gap = 2\nmoments = \"8bit\"";
    if (kind == "natural-galore") keys += "\nhistory = 2\nlayerwise = true";
    recipe_.replace(recipe_.find("kind = \"muon\""), 13, keys);
    if (kind == "natural-galore") recipe_.replace(recipe_.find("batch_tokens = 512"), 18, "batch_tokens = 256");
    Ledger ledger;
    const auto whole = make(ledger, kind + "-whole", false);
    EXPECT_TRUE(whole->run());
    Trainer::Callbacks callbacks;
    uint64_t seen = 0;
    callbacks.step = [&](const StepReport& report) { seen = report.step; };
    callbacks.stop = [&] { return seen == 3; };
    { EXPECT_FALSE(make(ledger, kind + "-cut", false, callbacks)->run()); }
    const auto second = make(ledger, kind + "-cut", true);
    EXPECT_EQ(second->progression().step, 3u);
    EXPECT_TRUE(second->run());
    EXPECT_EQ(weights_of(*whole), weights_of(*second)) << kind;
  }
}

/// Updates inside backward change nothing but the memory: gradients live one after the other.
TEST_F(TrainerTest, LayerwiseUpdatesGiveTheSameWeightsWithLessMemory) {
  recipe_.replace(recipe_.find("batch_tokens = 512"), 18, "batch_tokens = 256");
  const std::string base = recipe_;
  std::vector<float> weights;
  uint64_t whole_bytes = 0;
  for (const std::string layerwise : {"false", "true"}) {
    recipe_ = base;
    recipe_.replace(recipe_.find("kind = \"muon\""), 13,
                    "kind = \"galore\"\nrank = 6\nclip_norm = 0\nlayerwise = " + layerwise);
    Ledger ledger;
    const auto trainer = make(ledger, layerwise, false);
    EXPECT_TRUE(trainer->run());
    const uint64_t bytes = ledger.peak(Tier::kRam, Tag::kGradient);
    if (layerwise == "false") {
      weights = weights_of(*trainer);
      whole_bytes = bytes;
      continue;
    }
    EXPECT_EQ(weights, weights_of(*trainer));
    // Beside the embedding, which is used first and last, only the gradients of one op are alive: q, k and v.
    const size_t expected = (500 * 32 + 3 * 32 * 32) * sizeof(float);
    EXPECT_GE(bytes, expected);
    EXPECT_LT(bytes, expected + 4096);
    EXPECT_LT(bytes, whole_bytes);
  }
}

/// Several micro-batches with updates inside backward: gradients are summed in the subspace and whole ones do not stay. The
/// subspace comes from the first micro-batch instead of all, so that the weights are only about the same.
TEST_F(TrainerTest, GatheredProjectionsGiveTheSameWeightsWithLessMemory) {
  recipe_.replace(recipe_.find("every_steps = 3"), 15, "every_steps = 0");
  recipe_.replace(recipe_.find("layers = 2"), 10, "layers = 12");
  const std::string base = recipe_;
  std::vector<float> weights;
  uint64_t whole_bytes = 0;
  for (const std::string layerwise : {"false", "true"}) {
    recipe_ = base;
    recipe_.replace(recipe_.find("kind = \"muon\""), 13,
                    "kind = \"galore\"\nrank = 4\nupdate_gap = 1000000\nclip_norm = 0\nlayerwise = " + layerwise);
    Ledger ledger;
    const auto trainer = make(ledger, layerwise, false);
    EXPECT_TRUE(trainer->run());
    const uint64_t bytes = ledger.peak(Tier::kRam, Tag::kGradient);
    if (layerwise == "false") {
      weights = weights_of(*trainer);
      whole_bytes = bytes;
      continue;
    }
    EXPECT_LT(bytes, whole_bytes);
    const std::vector<float> gathered = weights_of(*trainer);
    double difference = 0, size = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      difference += std::pow(gathered[i] - weights[i], 2);
      size += std::pow(weights[i], 2);
    }
    EXPECT_LT(std::sqrt(difference / size), 0.05);
  }
}

TEST_F(TrainerTest, DamagedCheckpointFallsBackToTheOneBefore) {
  Ledger ledger;
  Trainer::Callbacks callbacks;
  uint64_t seen = 0;
  callbacks.step = [&](const StepReport& report) { seen = report.step; };
  callbacks.stop = [&] { return seen >= 2; };
  { make(ledger, "run", false, callbacks)->run(); }
  { make(ledger, "run", true, callbacks)->run(); }
  const std::string newest = (folder_ / "run" / checkpoint_name(3)).string();
  std::string bytes = read_text_file(newest);
  for (const size_t at : {size_t{3}, size_t{40}, bytes.size() / 2, bytes.size() - 100}) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    std::ofstream(newest, std::ios::binary) << damaged;
    EXPECT_EQ(make(ledger, "run", true)->progression().step, 2u) << at;
  }
  std::ofstream(newest, std::ios::binary) << bytes.substr(0, bytes.size() / 3);
  EXPECT_EQ(make(ledger, "run", true)->progression().step, 2u);
  fs::remove(folder_ / "run" / checkpoint_name(2));
  EXPECT_THROW(make(ledger, "run", true), Error);
}

/// A disk that fills up while a checkpoint is written: the run ends with a message, the checkpoint before stays good.
TEST_F(TrainerTest, FullDiskKeepsTheCheckpointBefore) {
  Trainer::Callbacks callbacks;
  uint64_t seen = 0, stop_at = 2;
  callbacks.step = [&](const StepReport& report) { seen = report.step; };
  callbacks.stop = [&] { return seen == stop_at; };
  Ledger ledger;
  const auto trainer = make(ledger, "run", false, callbacks);
  EXPECT_FALSE(trainer->run());
  const auto before = list_checkpoints((folder_ / "run").string());
  ASSERT_EQ(before.size(), 1u);

  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{fs::file_size(before[0]) / 2, old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  stop_at = 4;
  std::string error = "none";
  try {
    trainer->run();
  } catch (const Error& e) {
    error = e.what();
  }
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(error, HasSubstr("checkpoint-00000004.bin"));
  EXPECT_EQ(list_checkpoints((folder_ / "run").string()), before);
  size_t n_files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "run"))
    n_files += entry.path().string().find("checkpoint") != std::string::npos;
  EXPECT_EQ(n_files, 1u) << "a part of the failed checkpoint was left behind";
  const auto resumed = make(ledger, "run", true);
  EXPECT_EQ(resumed->progression().step, 2u);
  EXPECT_TRUE(resumed->run());
}

/// Any flipped bit and any cut is refused, unless it hits the padding between arrays; nothing is read beyond the file.
TEST_F(TrainerTest, EveryDamageToACheckpointIsNoticed) {
  Ledger ledger;
  const auto trainer = make(ledger, "run", false);
  EXPECT_TRUE(trainer->run());
  const std::string path = list_checkpoints((folder_ / "run").string()).front();
  const std::string good = read_text_file(path);
  const std::string damaged = (folder_ / "damaged.bin").string();
  LlamaModel<float> model(ledger, trainer->model().sizes(), GemmFormat::kFull);
  const auto optimizer = make_optimizer(ledger, model.parameter_list(), parse_recipe(recipe_, "test").optimizer);
  size_t n_refused = 0;
  const auto safe = [&](const std::string& bytes) {
    std::ofstream(damaged, std::ios::binary) << bytes;
    try {
      const Progression progression = read_checkpoint(damaged, model.parameters(), optimizer.get());
      std::vector<float> values;
      for (const auto& p : model.parameters().all()) values.insert(values.end(), p.value, p.value + p.size());
      return progression.step == 6 && values == weights_of(*trainer);
    } catch (const Error&) {
      ++n_refused;
      return true;
    }
  };
  ASSERT_TRUE(safe(good));
  ASSERT_EQ(n_refused, 0u);
  PhiloxStream random(1);
  for (int i = 0; i < 150; ++i) {
    std::string bytes = good;
    // Half of the flips hit the first kilobyte, where the lengths and names are.
    const size_t at = random.next_below(i % 2 == 0 ? 1024 : bytes.size());
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.next_below(8)));
    EXPECT_TRUE(safe(bytes)) << "bit flipped in byte " << at;
    EXPECT_TRUE(safe(good.substr(0, random.next_below(good.size())))) << "cut";
  }
  EXPECT_GT(n_refused, 280u);
}

/// A user's own texts and conversations, without anything that is generated.
TEST_F(TrainerTest, OwnTextAndChatTrainAndAreEvaluated) {
  AtomicFile chat((folder_ / "chat.jsonl").string());
  for (int i = 0; i < 40; ++i) {
    chat.write(R"({"messages": [{"role": "user", "content": "Say )" + std::to_string(i) +
               R"("}, {"role": "assistant", "content": "It is )" + std::to_string(i) + "\"}]}\n");
  }
  chat.commit();
  const std::string books = "books = \"" + (folder_ / "books").string() + "\"";
  recipe_.replace(
      recipe_.find(books), books.size(),
      "text = [\"" + (folder_ / "books").string() + "\"]\nchat = [\"" + (folder_ / "chat.jsonl").string() + "\"]");
  recipe_.replace(recipe_.find("size = 500"), 10, "size = 380");  // so little text has no more pieces
  Ledger ledger;
  const auto trainer = make(ledger, "own", false);
  EXPECT_TRUE(trainer->run());
  const std::string log = read_text_file((folder_ / "own" / "log.jsonl").string());
  EXPECT_THAT(log, HasSubstr("text_loss"));
  EXPECT_THAT(log, HasSubstr("chat_loss"));
  EXPECT_EQ(log.find("\"recall\""), std::string::npos) << "nothing generated was asked for";
}

TEST_F(TrainerTest, RefusesToOverwriteARun) {
  Ledger ledger;
  Trainer::Callbacks callbacks;
  callbacks.stop = [] { return true; };
  { make(ledger, "run", false, callbacks)->run(); }
  EXPECT_THROW(make(ledger, "run", false), Error);
}

TEST_F(TrainerTest, MemoryLimitIsKeptOrRefused) {
  Ledger ledger;
  make(ledger, "free", false);
  const uint64_t free_use = ledger.peak(Tier::kRam);
  const std::string tokenizer = read_text_file((folder_ / "free" / "tokenizer.model").string());
  bool refused = false, tightened = false;
  for (const double share : {0.95, 0.75, 0.3}) {
    Ledger limited(static_cast<uint64_t>(share * static_cast<double>(free_use)));
    try {
      const auto trainer = make(limited, "limited" + std::to_string(share), false);
      trainer->run();
      EXPECT_LE(limited.peak(Tier::kRam), limited.limit(Tier::kRam));
      tightened = tightened || trainer->memory_plan().find("keep all") == std::string::npos;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget) << e.what();
      refused = true;
    }
  }
  EXPECT_TRUE(tightened);
  EXPECT_TRUE(refused);
}

TEST_F(TrainerTest, NotANumberStopsWithStepTensorAndCheckpoint) {
  Ledger ledger;
  const auto trainer = make(ledger, "run", false);
  trainer->model().parameters().find("blk.1.ffn_up.weight")->value[5] = std::numeric_limits<float>::quiet_NaN();
  try {
    trainer->run();
    FAIL() << "the run went on";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("step 0"));
    EXPECT_THAT(e.what(), HasSubstr("gradient of"));
    EXPECT_THAT(e.hint(), HasSubstr("no checkpoint"));
  }
}

TEST_F(TrainerTest, ExportedModelHasTheSameWeightsAndVocabulary) {
  Ledger ledger;
  { make(ledger, "run", false)->run(); }
  FinishedRun run = load_run(ledger, (folder_ / "run").string());
  EXPECT_EQ(run.progression.step, 6u);
  const std::string path = (folder_ / "m.gguf").string();
  export_gguf(path, "tiny", *run.model, *run.tokenizer, DType::kF32);
  {
    const ModelFile file = open_gguf(path);
    LlamaModel<float> back(ledger, llama_sizes_of(file), GemmFormat::kFull);
    load_weights(file, back);
    auto original = run.model->parameters().all().begin();
    for (const auto& p : back.parameters().all()) {
      EXPECT_TRUE(std::equal(p.value, p.value + p.size(), original->value)) << p.name;
      ++original;
    }
    EXPECT_EQ(file.metadata().find_array_string("tokenizer.ggml.tokens")->size(), 500u);
  }
  export_gguf(path, "tiny", *run.model, *run.tokenizer, DType::kQ8_0);
  const ModelFile small = open_gguf(path);
  EXPECT_EQ(small.find("blk.0.attn_q.weight")->view.dtype, DType::kQ8_0);
  EXPECT_EQ(small.find("blk.0.attn_norm.weight")->view.dtype, DType::kF32);
  EXPECT_THROW(export_gguf(path, "tiny", *run.model, *run.tokenizer, DType::kQ4_K), Error);
  EXPECT_THROW(load_run(ledger, folder_.string()), Error);
}

/// The sampler's step-by-step logits lead to the same greedy ids as full forwards.
TEST(Sampler, GreedyMatchesTheTrainingForward) {
  Ledger ledger;
  LlamaSizes sizes;
  sizes.vocabulary = 31;
  sizes.width = 16;
  sizes.n_layers = 2;
  sizes.n_heads = 4;
  sizes.n_kv_heads = 2;
  sizes.ffn_width = 24;
  sizes.context = 24;
  LlamaModel<float> model(ledger, sizes, GemmFormat::kFull);
  model.initialise(4);
  for (auto& p : model.parameters().all()) {
    for (size_t i = 0; i < p.size(); ++i) p.value[i] *= p.role == Role::kNorm ? 1.0f : 20.0f;
  }
  Sampler sampler(ledger, model, 3, 20);
  const std::vector<std::vector<int32_t>> prompts{{1, 5, 9}, {2}, {3, 3, 3, 3, 3}};
  const auto results = sampler.run(prompts, -1, {0.0f, 1.0f, 0});
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> ids = prompts[i];
    ids.insert(ids.end(), results[i].begin(), results[i].end());
    ASSERT_EQ(ids.size(), 20u);
    const std::vector<float> weights(ids.size(), 1.0f);
    const std::vector<uint32_t> starts{0, 20};
    executor.evaluate({ids, ids, weights, starts, 1.0});
    for (size_t t = prompts[i].size() - 1; t + 1 < ids.size(); ++t)
      EXPECT_EQ(model.loss().best_ids()[t], ids[t + 1]) << i << " " << t;
  }
  EXPECT_THROW(Sampler(ledger, model, 1, 100), Error);
}

TEST(Sampler, DrawRespectsTopP) {
  for (int i = 0; i < 100; ++i) {
    std::vector<float> logits{0.0f, 5.0f, 4.9f, -3.0f};
    const int32_t id = draw(logits, {1.0f, 0.9f, 0}, static_cast<float>(i) / 100);
    EXPECT_TRUE(id == 1 || id == 2) << id;
  }
  std::vector<float> broken{0.0f, std::numeric_limits<float>::quiet_NaN(), 1.0f};
  EXPECT_THROW(draw(broken, {1.0f, 0.9f, 0}, 0.5f), Error);
}

}  // namespace
}  // namespace mneme::train
