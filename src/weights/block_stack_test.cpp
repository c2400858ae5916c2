#include "weights/block_stack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "base/test_sanitizer.h"
#include "budget/resident.h"
#include "tensor/weight_format.h"
#include "weights/bitstack_decomposition.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"
#include "weights/quantize.h"
#include "weights/stack_order.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

/// A file of three matrices of normal values in four blocks each.
class BlockStackTest : public testing::Test {
 protected:
  void SetUp() override { make({}, 64); }

  void make(QuantizeOptions options, uint64_t width) {
    Metadata metadata("test");
    metadata.set_string("general.architecture", "llama");
    PhiloxStream random(1);
    const std::vector<std::pair<std::string, Shape>> shapes = {{"token_embd.weight", Shape{8, 256}},
                                                               {"blk.0.attn_q.weight", Shape{width, 2 * width}},
                                                               {"blk.0.ffn_up.weight", Shape{width + 3, width}},
                                                               {"blk.1.attn_q.weight", Shape{2 * width, width}}};
    std::vector<std::vector<float>> data;
    std::vector<NamedTensor> views;
    for (const auto& [name, shape] : shapes) {
      data.emplace_back(shape.elements());
      for (float& v : data.back()) v = 0.02f * random.next_normal();
      views.push_back({name, {DType::kF32, shape, reinterpret_cast<const std::byte*>(data.back().data())}});
    }
    write_gguf(folder_.file("source.gguf"), metadata, views);
    options.recipe = find_quant_recipe("BITSTACK");
    options.stack.blocks = 4;
    Ledger ledger;
    ModelFileSource source(open_gguf(folder_.file("source.gguf")));
    report_ = quantize_model(source, path(), options, ledger);
  }
  std::string path() const { return folder_.file("stack.gguf"); }
  ModelFile open() const { return open_gguf(path()); }
  std::unique_ptr<BlockStack> loaded(Ledger& ledger, size_t n) const {
    auto stack = BlockStack::of(open());
    stack->load(ledger, n);
    return stack;
  }
  /// The first bytes of the file, as another file.
  std::string cut(uint64_t bytes) const {
    std::string text = read_text_file(path());
    text.resize(bytes);
    return write(text);
  }
  std::string write(const std::string& text) const {
    std::ofstream(folder_.file("other.gguf"), std::ios::binary) << text;
    return folder_.file("other.gguf");
  }
  /// All that products can read, with how much of it there is.
  static std::vector<std::byte> content(const BlockStack& stack) {
    std::vector<std::byte> out;
    for (const char* name : {"blk.0.attn_q.weight", "blk.0.ffn_up.weight", "blk.1.attn_q.weight"}) {
      const bitstack::BlockList& list = *stack.find(name);
      out.push_back(static_cast<std::byte>(list.n_blocks));
      for (size_t i = 0; i < list.n_blocks; ++i) out.insert(out.end(), list.block(i), list.block(i) + 512);
    }
    return out;
  }

  TestFolder folder_;
  TranscodeReport report_;
};

TEST_F(BlockStackTest, TheFileHasTheMatricesAndKeepsTheRestBetter) {
  const ModelFile file = open();
  EXPECT_EQ(file.find("token_embd.weight")->view.dtype, DType::kQ6_K);
  EXPECT_EQ(file.tensors().back().name, bitstack::kBlocksName);
  const TensorView& view = file.find("blk.0.ffn_up.weight")->view;
  EXPECT_EQ(view.blocks->n_blocks, 4u);
  const ModelFile source = open_gguf(folder_.file("source.gguf"));
  std::vector<float> want(64), got(64);
  double error = 0, norm = 0;
  for (uint64_t r = 0; r < view.rows(); ++r) {
    decode_row(source.find("blk.0.ffn_up.weight")->view, r, want.data());
    decode_row(view, r, got.data());
    for (size_t i = 0; i < 64; ++i) {
      error += std::pow(static_cast<double>(want[i] - got[i]), 2);
      norm += std::pow(static_cast<double>(want[i]), 2);
    }
  }
  EXPECT_LT(error / norm, 0.04);
  EXPECT_NEAR(error / norm, report_.tensors[1].squared_error / report_.tensors[1].squared_norm, 1e-4);
  EXPECT_EQ(report_.file_bytes, file.file_bytes());
}

TEST_F(BlockStackTest, TheOrderIsThatOfWhatBlocksGain) {
  Ledger ledger;
  const ModelFile source = open_gguf(folder_.file("source.gguf"));
  std::vector<bitstack::StackedGains> matrices;
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.ffn_up.weight", "blk.1.attn_q.weight"}) {
    const TensorView& view = source.find(name)->view;
    std::vector<float> w(view.shape.elements());
    for (uint64_t r = 0; r < view.rows(); ++r) decode_row(view, r, w.data() + r * view.columns());
    const bitstack::BlockLayout layout{view.rows(), view.columns(), 2};
    const bitstack::Decomposition made = bitstack::decompose(w, layout, {}, 4, ledger);
    matrices.push_back({layout.bytes(), {}});
    for (size_t i = 0; i < 4; ++i) {
      matrices.back().gains.push_back((made.errors[i] - made.errors[i + 1]) / made.errors[0]);
    }
  }
  QuantizeOptions options;
  options.stack.vectors = 2;
  for (const auto order :
       {bitstack::StackOrder::kAverage, bitstack::StackOrder::kGreedy, bitstack::StackOrder::kRandom}) {
    options.stack.order = order;
    make(options, 64);
    std::vector<bitstack::BlockId> found;
    for (const bitstack::PlacedBlock& block : bitstack::placed_blocks(open())) found.push_back(block.id);
    EXPECT_EQ(found, bitstack::order_blocks(order, matrices, options.stack.seed)) << static_cast<int>(order);
  }
}

TEST_F(BlockStackTest, OneByOneIsAllAtOnceAndShrinkingComesBack) {
  Ledger one_ledger, all_ledger;
  const auto all = loaded(all_ledger, 12);
  const auto one = loaded(one_ledger, 3);
  EXPECT_EQ(all->n_blocks(), 12u);
  EXPECT_EQ(all->least_blocks(), 3u);
  std::vector<std::vector<std::byte>> at;
  for (size_t n = 4; n <= 12; ++n) {
    const uint64_t before = one->status().bytes_read;
    one->set_target(n);
    EXPECT_EQ(one->status().loaded, n);
    // Exactly the bytes of the one block were read.
    const auto blocks = bitstack::placed_blocks(open());
    EXPECT_EQ(one->status().bytes_read - before, blocks[n - 1].bytes);
    at.push_back(content(*one));
  }
  EXPECT_EQ(at.back(), content(*all));
  for (size_t n = 11; n >= 4; --n) {
    one->set_target(n);
    EXPECT_EQ(content(*one), at[n - 4]) << n;
  }
  one->set_target(0);
  EXPECT_EQ(one->status().loaded, 3u);
  EXPECT_EQ(one->status().target, 3u);
  one->set_target(100);
  EXPECT_EQ(one->status().target, 12u);
  EXPECT_EQ(content(*one), content(*all));
  EXPECT_EQ(one_ledger.used(Tier::kRam), all_ledger.used(Tier::kRam));
}

TEST_F(BlockStackTest, StepsAreAtMostABlockAndAPage) {
  Ledger ledger;
  const auto stack = loaded(ledger, 12);
  uint64_t largest = 0;
  for (const auto& block : bitstack::placed_blocks(open())) largest = std::max(largest, block.bytes);
  for (size_t n = 4; n <= 12; ++n) {
    EXPECT_LE(stack->bytes(n) - stack->bytes(n - 1), largest + 4096);
    EXPECT_GE(stack->fitting(stack->bytes(n)), n);
    EXPECT_LT(stack->fitting(stack->bytes(n) - 1), n);
  }
}

TEST_F(BlockStackTest, TheLedgerTakesBlocksAndTheStackComesBack) {
  Ledger ledger;
  const auto stack = loaded(ledger, 12);
  const std::vector<std::byte> full = content(*stack);
  const uint64_t held = stack->status().bytes;
  ledger.set_limit(Tier::kRam, held);
  {
    const Reservation other = ledger.reserve(Tag::kKv, held / 3, "context");
    EXPECT_LE(stack->status().bytes, held - held / 3);
    EXPECT_EQ(stack->status().loaded, stack->fitting(held - held / 3)) << "and no more than asked for";
    EXPECT_EQ(stack->status().n_shrunk, 1u);
    stack->regrow();
    EXPECT_LT(stack->status().loaded, 12u);  // there is still no room
    EXPECT_THROW(ledger.reserve(Tag::kKv, held, "too much"), Error);
    EXPECT_EQ(stack->status().loaded, 3u);
  }
  { const BlockStack::Pass pass(stack.get()); }
  EXPECT_EQ(stack->status().loaded, 3u);  // room that a pass finds is its own
  stack->regrow();
  EXPECT_EQ(content(*stack), full);
  EXPECT_EQ(stack->status().n_grown, 1u);
}

/// Memory that another holder gives back when it is asked.
struct OtherHolder : Reclaimer {
  OtherHolder(Ledger& ledger, uint64_t bytes) : held(ledger.reserve(Tag::kKv, bytes, "pages")), of(ledger) {
    of.add_reclaimer(this);
  }
  ~OtherHolder() override { of.remove_reclaimer(this); }
  std::string name() const override { return "pages"; }
  uint64_t reclaimable(Tier) const override { return held.bytes(); }
  double cost_per_byte() const override { return 1; }
  uint64_t reclaim(Tier, uint64_t) override {
    const uint64_t bytes = held.bytes();
    held.release();
    return bytes;
  }
  Reservation held;
  Ledger& of;
};

TEST_F(BlockStackTest, OnlyANewTargetTakesFromOthers) {
  Ledger ledger;
  const auto stack = loaded(ledger, 12);
  ledger.set_limit(Tier::kRam, stack->status().bytes);
  stack->set_target(4);
  OtherHolder pages(ledger, ledger.limit(Tier::kRam) - ledger.used(Tier::kRam));
  stack->set_target(3);
  stack->set_target(12);
  EXPECT_EQ(stack->status().loaded, 12u);
  EXPECT_FALSE(pages.held);
  // A stack that lost blocks to others does not take them back from others.
  pages.held = ledger.reserve(Tag::kKv, stack->bytes(12) - stack->bytes(6), "pages");
  EXPECT_LT(stack->status().loaded, 12u);
  const size_t left = stack->status().loaded;
  stack->regrow();
  EXPECT_EQ(stack->status().loaded, left);
  EXPECT_TRUE(pages.held);
}

TEST_F(BlockStackTest, NothingMovesDuringAPass) {
  Ledger ledger;
  const auto stack = loaded(ledger, 12);
  const uint64_t held = stack->status().bytes;
  {
    const BlockStack::Pass pass(stack.get());
    EXPECT_GT(ledger.set_limit(Tier::kRam, held / 2), 0u);
    EXPECT_EQ(stack->reclaimable(Tier::kRam), 0u);
    stack->set_target(5);
    EXPECT_EQ(stack->status().loaded, 12u);
  }
  EXPECT_LE(ledger.used(Tier::kRam), held / 2);
  EXPECT_LE(stack->status().loaded, 5u);
}

TEST_F(BlockStackTest, PagesReallyGoBack) {
  if (kAddressSanitizer || kThreadSanitizer) GTEST_SKIP() << "sanitizers keep memory of their own";
  make({}, 512);
  Ledger ledger;
  const auto stack = loaded(ledger, 12);
  const uint64_t full = resident_bytes(), difference = stack->bytes(12) - stack->bytes(3);
  stack->set_target(3);
  const uint64_t small = resident_bytes();
  EXPECT_NEAR(static_cast<double>(full - small), static_cast<double>(difference),
              0.05 * static_cast<double>(difference));
  stack->set_target(12);
  EXPECT_NEAR(static_cast<double>(resident_bytes()), static_cast<double>(full), 0.05 * static_cast<double>(difference));
}

TEST_F(BlockStackTest, APrefixOfTheFileIsAModel) {
  const auto blocks = bitstack::placed_blocks(open());
  const auto size = std::filesystem::file_size(path());
  const uint64_t start = size - (blocks.back().place + blocks.back().bytes);  // the last tensor is padded by less
  const ModelFile seven = open_gguf(cut(start + blocks[7].place + 5));
  EXPECT_EQ(bitstack::placed_blocks(seven).size(), 7u);
  EXPECT_EQ(BlockStack::of(seven)->n_blocks(), 7u);
  EXPECT_THAT(error_of([&] { open_gguf(cut(start + blocks[2].place + 5)); }),
              HasSubstr("at least one block of each matrix"));
  EXPECT_THAT(error_of([&] { open_gguf(cut(start - 40)); }), HasSubstr("BITSTACK stream of at most"));
  // quantize --size writes such a file itself.
  QuantizeOptions options;
  options.size = start + blocks[7].place + 5;
  make(options, 64);
  EXPECT_EQ(BlockStack::of(open())->n_blocks(), 7u);
  EXPECT_LE(std::filesystem::file_size(path()), options.size);
  for (const size_t n : {7u, 6u}) {  // to the byte
    options.size = std::filesystem::file_size(path()) - (n == 6 ? 1 : 0);
    make(options, 64);
    EXPECT_EQ(BlockStack::of(open())->n_blocks(), n);
  }
  options.size = 1000;
  EXPECT_THAT(error_of([&] { make(options, 64); }), HasSubstr("expected a size of at least"));
}

TEST_F(BlockStackTest, ADamagedBlockEndsTheStackOrTheModel) {
  const auto blocks = bitstack::placed_blocks(open());
  const std::string good = read_text_file(path());
  const uint64_t start = good.size() - (blocks.back().place + blocks.back().bytes);
  const auto with_damage_at = [&](size_t block) {
    std::string text = good;
    text[start + blocks[block].place + 10] ^= 1;
    return open_gguf(write(text));
  };
  Ledger ledger;
  const auto stack = BlockStack::of(with_damage_at(6));
  stack->load(ledger, 12);
  EXPECT_EQ(stack->status().loaded, 6u);
  EXPECT_EQ(stack->status().usable, 6u);
  EXPECT_EQ(ledger.used(Tier::kRam), stack->bytes(6)) << "room for what was not loaded goes back";
  { const BlockStack::Pass pass(stack.get()); }
  EXPECT_EQ(stack->status().loaded, 6u);
  const auto broken = BlockStack::of(with_damage_at(1));
  EXPECT_THAT(error_of([&] { broken->load(ledger, 12); }), HasSubstr("expected its checksum"));
}

TEST_F(BlockStackTest, DirectoriesThatDoNotFitTogetherAreRefused) {
  std::string text = read_text_file(path());
  const ModelFile file = open();
  const auto at = static_cast<size_t>(file.find("blk.0.ffn_up.weight")->view.data - file.files()[0].bytes().data());
  text[at + bitstack::kFirstEntry] ^= 32;  // the place of a first block
  EXPECT_THAT(error_of([&] { open_gguf(write(text)); }), HasSubstr("expected its block"));
}

TEST_F(BlockStackTest, BytesOfNoBlockAreRefused) {
  const ModelFile file = open();
  std::vector<TensorInfo> infos;
  for (const NamedTensor& tensor : file.tensors()) {
    infos.push_back({tensor.name, tensor.view.dtype, tensor.view.shape, tensor.view.stream_bytes});
  }
  infos.back().shape = Shape{infos.back().shape.elements() + 32};
  GgufWriter writer(folder_.file("other.gguf"), file.metadata(), infos);
  for (const NamedTensor& tensor : file.tensors()) writer.write({tensor.view.data, tensor.view.bytes()});
  writer.write(std::vector<std::byte>(32));
  writer.finish();
  EXPECT_THAT(error_of([&] { open_gguf(folder_.file("other.gguf")); }), HasSubstr("bytes of blocks, found"));
}

TEST_F(BlockStackTest, ItConvertsToOtherTypesAsAWhole) {
  Ledger ledger;
  ModelFileSource source(open());
  QuantizeOptions options;
  options.recipe = find_quant_recipe("F32");
  EXPECT_THAT(error_of([&] { quantize_model(source, folder_.file("f32.gguf"), options, ledger); }),
              HasSubstr("without loss"));
  options.lossy = true;
  quantize_model(source, folder_.file("f32.gguf"), options, ledger);
  const ModelFile file = open_gguf(folder_.file("f32.gguf"));
  EXPECT_EQ(file.find(bitstack::kBlocksName), nullptr);
  std::vector<float> want(64), got(64);
  decode_row(open().find("blk.1.attn_q.weight")->view, 9, want.data());
  decode_row(file.find("blk.1.attn_q.weight")->view, 9, got.data());
  EXPECT_EQ(want, got);
  // Without a change of type it is copied.
  options.recipe = nullptr;
  quantize_model(source, folder_.file("copy.gguf"), options, ledger);
  EXPECT_EQ(BlockStack::of(open_gguf(folder_.file("copy.gguf")))->n_blocks(), 12u);
}

TEST_F(BlockStackTest, OptionsThatDoNotGoTogetherAreRefused) {
  QuantizeOptions options;
  options.gptq = true;
  EXPECT_THAT(error_of([&] { make(options, 64); }), HasSubstr("has its own scales"));
}

}  // namespace
}  // namespace mneme
