// Files that lie, lack something or are cut: one line on stderr, a failing status, no crash.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/philox.h"
#include "program.h"
#include "random_model.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class BadFiles : public testing::Test {
 protected:
  std::string write(const Metadata& metadata, const std::vector<TensorInfo>& tensors) const {
    const std::string path = folder_.file("model.gguf");
    write_random_tensors(path, metadata, tensors);
    return path;
  }
  /// The message with which the model is refused; fails the test when it is not, or not in one line.
  static std::string refusal(const std::string& path) {
    const Outcome run = mneme_run({"run", path, "--raw", "-p", "x", "-n", "1"});
    EXPECT_EQ(run.signal, 0);
    EXPECT_EQ(run.out, "");
    EXPECT_NE(run.error(), "") << "status " << run.status << ", stderr: " << run.err;
    return run.error();
  }

  TestFolder folder_;
  RandomModel model_;
};

TEST_F(BadFiles, TheModelThatTheOthersBreakRuns) {
  const std::string path = write(model_.metadata(), model_.tensors());
  const Outcome run = mneme_run({"run", path, "--raw", "-p", "x", "-n", "4", "--ignore-eos", "--json"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_EQ(run.json()["tokens"].size(), 4u);
  const Outcome info = mneme_run({"info", path, "--json"});
  ASSERT_TRUE(info.ok()) << info.err;
  EXPECT_EQ(info.json()["vocabulary"], model_.n_vocab);
}

TEST_F(BadFiles, CutAnywhereIsRefused) {
  const std::string whole = read_file(write(model_.metadata(), model_.tensors()));
  for (size_t length : {size_t{0}, size_t{3}, size_t{8}, size_t{23}, size_t{100}, size_t{2000}, whole.size() / 2,
                        whole.size() - 1000}) {
    const std::string path = folder_.write("cut.gguf", std::string_view(whole).substr(0, length));
    SCOPED_TRACE(length);
    refusal(path);
    const Outcome info = mneme_run({"info", path});
    EXPECT_NE(info.error(), "") << info.err;
  }
}

TEST_F(BadFiles, GarbageIsRefused) {
  PhiloxStream random(3);
  std::string noise(5000, '\0');
  for (char& c : noise) c = static_cast<char>(random.next_u32());
  refusal(folder_.write("noise.gguf", noise));
  noise.replace(0, 8, std::string("GGUF\x03\0\0\0", 8));  // only the start is right: the counts are noise
  refusal(folder_.write("noise.gguf", noise));
  refusal(folder_.write("text.gguf", "This is a letter, and no model.\n"));
  refusal(folder_.path().string());
  EXPECT_THAT(refusal(folder_.file("missing.gguf")), HasSubstr("missing.gguf"));
}

/// Bytes of a good file changed at random: refused or run, but never a crash.
TEST_F(BadFiles, ChangedHeadersNeverCrash) {
  const std::string whole = read_file(write(model_.metadata(), model_.tensors()));
  PhiloxStream random(11);
  for (int i = 0; i < 24; ++i) {
    std::string changed = whole;
    // Half of the changes hit the head and the first keys, half the tensor list at the end of the headers.
    const size_t list = whole.find("token_embd.weight") - 8;
    for (int k = 0; k < 3; ++k) {
      const size_t at = i % 2 == 0 ? 8 + random.next_below(600) : list + random.next_below(1200);
      changed[at] = static_cast<char>(random.next_u32());
    }
    const Outcome run =
        mneme_run({"run", folder_.write("changed.gguf", changed), "--raw", "-p", "x", "-n", "1", "--memory", "256M"});
    EXPECT_EQ(run.signal, 0) << "change " << i;
    if (!run.ok()) {
      EXPECT_NE(run.error(), "") << "change " << i << ": " << run.err;
    }
  }
}

TEST_F(BadFiles, UnknownArchitectureIsNamed) {
  std::string whole = read_file(write(model_.metadata(), model_.tensors()));
  const size_t key = whole.find("general.architecture");
  const size_t value = whole.find("llama", key);
  whole.replace(value, 5, "lynx9");
  EXPECT_THAT(refusal(folder_.write("lynx.gguf", whole)), AllOf(HasSubstr("lynx9"), HasSubstr("llama")));
}

TEST_F(BadFiles, MissingExtraAndMisshapenTensorsAreNamedTogether) {
  std::vector<TensorInfo> tensors = model_.tensors();
  std::erase_if(tensors, [](const TensorInfo& t) { return t.name == "blk.1.attn_k.weight"; });
  for (TensorInfo& t : tensors) {
    if (t.name == "blk.0.ffn_up.weight") t.shape = Shape{model_.hidden, model_.width / 2};
  }
  tensors.push_back({"blk.7.attn_q.weight", DType::kF32, Shape{model_.width, model_.width}});
  EXPECT_THAT(
      refusal(write(model_.metadata(), tensors)),
      AllOf(HasSubstr("blk.1.attn_k.weight"), HasSubstr("blk.0.ffn_up.weight"), HasSubstr("blk.7.attn_q.weight")));
}

TEST_F(BadFiles, TypesThatCannotRunAreNamed) {
  model_.width = 256;
  model_.n_heads = 4;
  std::vector<TensorInfo> tensors = model_.tensors();
  for (TensorInfo& t : tensors) {
    if (t.name == "blk.0.attn_q.weight") t.dtype = DType::kIQ2_S;
  }
  EXPECT_THAT(refusal(write(model_.metadata(), tensors)), AllOf(HasSubstr("blk.0.attn_q.weight"), HasSubstr("IQ2_S")));
}

TEST_F(BadFiles, ContradictingSizesAreRefused) {
  Metadata metadata = model_.metadata();
  metadata.set_u32("llama.attention.head_count", 5);
  refusal(write(metadata, model_.tensors()));
  metadata = model_.metadata();
  metadata.set_u32("llama.block_count", 4'000'000'000u);
  EXPECT_THAT(refusal(write(metadata, model_.tensors())), HasSubstr("block_count"));
  metadata = model_.metadata();
  metadata.erase("llama.embedding_length");
  EXPECT_THAT(refusal(write(metadata, model_.tensors())), HasSubstr("llama.embedding_length"));
  RandomModel larger = model_;
  larger.n_vocab += 1;  // a word more than the matrices have rows
  EXPECT_THAT(refusal(write(larger.metadata(), model_.tensors())), HasSubstr("token_embd.weight"));
}

}  // namespace
}  // namespace mneme
