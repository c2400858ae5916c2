#include "context/cskv_kv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/error.h"
#include "base/test_error.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

constexpr KvShape kShape{2, 64, 48, 0};
constexpr const char* kPolicies[] = {"cskv:0.25",
                                     "cskv:keys=0.25,values=0.75,residual=32",
                                     "cskv:0.5+kivi:4",
                                     "cskv:0.25+token:8",
                                     "cskv:0.5,ranks=measured",
                                     "cskv:0.5,ranks=measured+kivi:4"};
/// What a measurement may have found for a layer: of no whole number a head, and no multiple of 4.
constexpr KvRanks kMeasured{37, 70};

std::shared_ptr<KvMoments> moments_of(const KvExample& example) {
  auto moments = std::make_shared<KvMoments>();
  moments->layers.resize(1);
  Ledger ledger;
  const auto store = KvPolicy::collecting(moments).make_layer(example.shape, 4096, 512, ledger);
  example.run(*store, {128});
  return moments;
}

/// A policy whose bases are fitted to an example; with measured ranks, one that found `ranks` by layer.
KvPolicy fitted(std::string_view name, const KvExample& text, const std::vector<KvRanks>& ranks = {kMeasured}) {
  KvPolicy policy = KvPolicy::parse(name);
  const auto moments = moments_of(text);
  auto bases = std::make_shared<KvBases>();
  if (policy.choices().features->measured) {
    for (const KvRanks& of : ranks) {
      bases->layers.push_back(of == KvRanks{} ? KvBases::Layer{} : moments->layers[0].fit(of));
    }
  } else {
    bases->layers.push_back(policy.fit(text.shape, moments->layers[0]));
  }
  policy.set_bases(bases);
  return policy;
}

KvExample text(uint64_t seed, size_t n_tokens = 700) {
  return hidden_state_example(kShape, 4, n_tokens, seed);
}

const CskvKv& cskv(const std::unique_ptr<KvLayer>& store) {
  return static_cast<const CskvKv&>(*store);
}

TEST(CskvKv, DensityOneIsPlain) {
  const KvExample example = text(1);
  Ledger ledger;
  const auto store = fitted("cskv:1", text(2)).make_layer(kShape, 4096, 512, ledger);
  const auto plain = KvPolicy::parse("f16").make_layer(kShape, 4096, 512, ledger);
  EXPECT_LT(relative_difference(example.run(*store, {100}), example.run(*plain, {100})), 1e-3);
}

TEST(CskvKv, ShortSequencesAreInTheTail) {
  const KvExample example = text(1, 127);
  Ledger ledger;
  const auto store = fitted("cskv:0.25", text(2)).make_layer(kShape, 4096, 512, ledger);
  const auto plain = KvPolicy::parse("f16").make_layer(kShape, 4096, 512, ledger);
  EXPECT_EQ(example.run(*store, {50}), example.run(*plain, {50}));
}

TEST(CskvKv, AttendsToWhatItStored) {
  const KvExample example = text(1, 400);
  const auto exact = example.rotated_keys();
  for (const char* name : kPolicies) {
    SCOPED_TRACE(name);
    Ledger ledger;
    const auto store = fitted(name, text(2)).make_layer(kShape, 4096, 512, ledger);
    const auto out = example.run(*store, {50});
    const size_t sealed = (400 - KvChoices::parse(name).residual) / 64 * 64;
    std::vector<float> keys(sealed * 64), values(sealed * 48);
    const size_t t = 399;  // the last token, when all of these were sealed
    for (size_t h = 0; h < 4; ++h) {
      const size_t head = h / 2;
      for (size_t b = 0; b < sealed / 64; ++b) {
        cskv(store).decode(static_cast<int64_t>(b), head, example.rope.get(), keys.data() + b * 64 * 64,
                           values.data() + b * 64 * 48);
      }
      std::vector<double> want(48);
      double sum = 0;
      for (size_t j = 0; j <= t; ++j) {
        const float* const key = j < sealed ? keys.data() + j * 64 : exact.data() + (j * 2 + head) * 64;
        const float* const value = j < sealed ? values.data() + j * 48 : example.v.data() + (j * 2 + head) * 48;
        double dot = 0;
        for (size_t d = 0; d < 64; ++d)
          dot += static_cast<double>(example.q[(t * 4 + h) * 64 + d]) * static_cast<double>(key[d]);
        const double p = std::exp(dot / 8);
        sum += p;
        for (size_t d = 0; d < 48; ++d) want[d] += p * static_cast<double>(value[d]);
      }
      for (size_t d = 0; d < 48; ++d) EXPECT_NEAR(out[(t * 4 + h) * 48 + d], want[d] / sum, 2e-3);
    }
  }
}

TEST(CskvKv, ResultsDoNotDependOnChunks) {
  const KvExample example = text(3, 330);
  for (const char* name : kPolicies) {
    SCOPED_TRACE(name);
    const KvPolicy policy = fitted(name, text(2));
    Ledger ledger;
    const auto one_by_one = policy.make_layer(kShape, 4096, 512, ledger),
               in_chunks = policy.make_layer(kShape, 4096, 512, ledger),
               at_once = policy.make_layer(kShape, 4096, 512, ledger);
    const auto want = example.run(*one_by_one, {1});
    EXPECT_EQ(example.run(*in_chunks, {200, 7, 1, 64}), want);
    EXPECT_EQ(example.run(*at_once, {330}), want);
    for (int64_t b = 0; b < (330 - 64) / 64; ++b) {  // features are those of an offline compression
      EXPECT_TRUE(std::ranges::equal(cskv(one_by_one).block(b), cskv(at_once).block(b)));
    }
  }
}

TEST(CskvKv, BytesAreThoseOfTheSpecAndTheFormula) {
  const KvShape shape{2, 128, 128, 0};
  const KvExample example = hidden_state_example(shape, 2, 1000, 1);
  for (const char* name : kPolicies) {
    SCOPED_TRACE(name);
    const KvPolicy policy = fitted(name, example);
    const StateSpec spec = policy.spec(shape, 4096, 512);
    Ledger ledger;
    const auto store = policy.make_layer(shape, 4096, 512, ledger);
    for (size_t first = 0; first < 1000; first += 125) {
      example.feed(*store, first, 125);
      EXPECT_EQ(store->bytes(), spec.bytes(first + 125));
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), store->bytes());
    }
  }
  const auto share = [&](const char* name, uint64_t tokens) {
    const KvShape large{8, 128, 128, 0};
    return static_cast<double>(KvPolicy::parse(name).spec(large, tokens, 512).bytes(tokens)) /
           static_cast<double>(KvPolicy::parse("f16").spec(large, tokens, 512).bytes(tokens));
  };
  EXPECT_NEAR(share("cskv:0.2", 65536), 0.2, 0.005);
  EXPECT_LT(share("cskv:0.2+kivi:4", 65536), 0.065);
}

TEST(CskvKv, MeasuredRanksThatAreEqualAreTheSameToTheBit) {
  const KvExample example = text(3, 330);
  for (const std::string codec : {"", "+kivi:4"}) {
    Ledger ledger;
    const KvPolicy equal = fitted("cskv:0.5" + codec, text(2));
    const KvPolicy measured = fitted("cskv:0.5,ranks=measured" + codec, text(2), {{64, 48}});
    EXPECT_EQ(measured.bases()->identity(), equal.bases()->identity());
    EXPECT_NE(measured.name(), equal.name());
    const auto a = equal.make_layer(kShape, 4096, 512, ledger), b = measured.make_layer(kShape, 4096, 512, ledger);
    EXPECT_EQ(example.run(*b, {100}), example.run(*a, {100}));
    for (int64_t i = 0; i < (330 - 64) / 64; ++i) EXPECT_TRUE(std::ranges::equal(cskv(a).block(i), cskv(b).block(i)));
  }
}

TEST(CskvKv, BytesOfALayerAreThoseOfItsOwnRanks) {
  const KvExample example = text(2, 1000);
  const std::vector<KvRanks> ranks = {{12, 90}, {128, 96}, {64, 1}, {}};
  for (const std::string codec : {"", "+kivi:4", "+token:2"}) {
    SCOPED_TRACE(codec);
    const std::string name = "cskv:0.5,ranks=measured" + codec;
    const KvPolicy policy = fitted(name, example, ranks);
    for (size_t layer = 0; layer < ranks.size(); ++layer) {
      const KvPlace place{KvPlace::Role::kAlone, nullptr, layer};
      const StateSpec spec = policy.spec(kShape, 4096, 512, place);
      Ledger ledger;
      const auto store = policy.make_layer(kShape, 4096, 512, ledger, place);
      for (size_t first = 0; first < 1000; first += 125) {
        example.feed(*store, first, 125);
        EXPECT_EQ(store->bytes(), spec.bytes(first + 125)) << layer;
        EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), store->bytes()) << layer;
      }
    }
    // Before there are bases a plan has the bytes of equal ranks.
    EXPECT_EQ(KvPolicy::parse(name).spec(kShape, 4096, 512).bytes(4096),
              KvPolicy::parse("cskv:0.5" + codec).spec(kShape, 4096, 512).bytes(4096));
  }
  const auto blocks = [&](size_t layer) {
    const KvPolicy policy = fitted("cskv:0.5,ranks=measured", example, ranks);
    const StateSpec spec = policy.spec(kShape, 1u << 20, 512, {KvPlace::Role::kAlone, nullptr, layer});
    return spec.bytes(64 + 4096 * 64) - spec.bytes(64);  // 4096 blocks
  };
  EXPECT_EQ(blocks(0), 4096u * 64 * 2 * (12 + 90));
  EXPECT_EQ(blocks(2), 4096u * 64 * 2 * (64 + 1));
}

TEST(CskvKv, ALayerWithoutFeaturesIsPlain) {
  const KvExample example = text(3, 330);
  Ledger ledger;
  const KvPolicy policy = fitted("cskv:0.5,ranks=measured", text(2), {kMeasured, {}});
  const auto store = policy.make_layer(kShape, 4096, 512, ledger, {KvPlace::Role::kAlone, nullptr, 1});
  const auto plain = KvPolicy::parse("f16").make_layer(kShape, 4096, 512, ledger);
  EXPECT_EQ(example.run(*store, {100}), example.run(*plain, {100}));
}

TEST(CskvKv, FittedBasesLoseLeast) {
  const KvExample fit = text(1, 1024), held_out = text(4, 1024);
  const auto moments = moments_of(fit), others = moments_of(held_out);
  const KvBases::Layer own = KvPolicy::parse("cskv:0.25").fit(kShape, moments->layers[0]);
  // The first channels, and directions of no text at all, are worse; its own text's basis is better by definition.
  std::vector<float> channels(32 * 128), random(32 * 128);
  PhiloxStream draw(5);
  for (size_t i = 0; i < 32; ++i) channels[i * 128 + i] = 1;
  for (float& x : random) x = draw.next_normal() / std::sqrt(128.0f);
  const double held_out_error = others->layers[0].keys->error_of(own.key_basis.data(), 32);
  EXPECT_LT(own.key_error, others->layers[0].keys->error_of(channels.data(), 32));
  EXPECT_LT(held_out_error, others->layers[0].keys->error_of(channels.data(), 32));
  const KvBases::Layer best = KvPolicy::parse("cskv:0.25").fit(kShape, others->layers[0]);
  EXPECT_LE(best.key_error, held_out_error + 1e-6);  // a basis of the sequence itself, as ShadowKV's
  EXPECT_NEAR(own.key_error, moments->layers[0].keys->error_of(own.key_basis.data(), 32), 1e-6);
}

TEST(CskvKv, WithoutItsBasesItIsRefused) {
  Ledger ledger;
  EXPECT_THROW(KvPolicy::parse("cskv:0.25").make_layer(kShape, 4096, 512, ledger), Error);
  KvPolicy policy = KvPolicy::parse("cskv:0.5");
  auto bases = std::make_shared<KvBases>();
  bases->layers.push_back(KvPolicy::parse("cskv:0.25").fit(kShape, moments_of(text(1))->layers[0]));
  policy.set_bases(bases);
  EXPECT_THROW(policy.make_layer(kShape, 4096, 512, ledger), Error);
  EXPECT_THROW(policy.make_layer(kShape, 4096, 512, ledger, {KvPlace::Role::kAlone, nullptr, 3}), Error);
  EXPECT_THROW((void)KvPolicy::parse("cskv:0.01").spec(kShape, 4096, 512), Error);  // not one feature a head
}

TEST(CskvKv, BasesWhoseRanksDoNotFitAreRefused) {
  const auto moments = moments_of(text(1));
  const KvBases::Layer good = moments->layers[0].fit(kMeasured);
  const auto refusal = [](const char* name, const KvBases::Layer& layer) {
    KvPolicy policy = KvPolicy::parse(name);
    auto bases = std::make_shared<KvBases>();
    bases->layers.push_back(layer);
    policy.set_bases(bases);
    Ledger ledger;
    const std::string of_plan = error_of([&] { (void)policy.spec(kShape, 4096, 512); });
    EXPECT_EQ(error_of([&] { policy.make_layer(kShape, 4096, 512, ledger); }), of_plan);
    return of_plan;
  };
  using testing::HasSubstr;
  EXPECT_EQ(refusal("cskv:0.5,ranks=measured", good), "no error");
  EXPECT_THAT(refusal("cskv:0.5", good), HasSubstr("64 and 48 features of 128 and 96 channels"));
  EXPECT_THAT(refusal("cskv:0.5", good), HasSubstr("found 37 and 70"));
  EXPECT_THAT(refusal("cskv:0.5", {}), HasSubstr("found 0 and 0"));
  KvBases::Layer other = good;
  other.keys.channels = 256;
  EXPECT_THAT(refusal("cskv:0.5,ranks=measured", other), HasSubstr("another model or policy"));
  other = good;
  other.values.rank = 97;
  EXPECT_THAT(refusal("cskv:0.5,ranks=measured", other), HasSubstr("found 37 and 97"));
  other = good;
  other.keys.rank = 0;  // keys as they are and values as features: no store does that
  EXPECT_THAT(refusal("cskv:0.5,ranks=measured", other), HasSubstr("found 0 and 70"));
}

TEST(CskvKv, StatesOfOtherBasesHaveOtherNames) {
  EXPECT_NE(fitted("cskv:0.5,ranks=measured", text(1), {{36, 70}}).name(),
            fitted("cskv:0.5,ranks=measured", text(1), {{70, 36}}).name());
  const KvPolicy a = fitted("cskv:0.25", text(1)), b = fitted("cskv:0.25", text(2));
  EXPECT_NE(a.name(), b.name());
  EXPECT_EQ(a.name(), fitted("cskv:0.25", text(1)).name());
}

TEST(CskvKv, SavedStatesGoOn) {
  const KvExample example = text(6, 900);
  for (const char* name : kPolicies) {
    SCOPED_TRACE(name);
    const KvPolicy policy = fitted(name, text(2));
    Ledger ledger;
    const auto store = policy.make_layer(kShape, 1024, 512, ledger),
               loaded = policy.make_layer(kShape, 1024, 512, ledger);
    for (size_t first = 0; first < 640; first += 64) example.feed(*store, first, 64);
    for (int64_t page = 0; page <= store->sealed_pages().end; ++page) {
      CountingWriter size;
      const bool rest = page == store->sealed_pages().end;
      rest ? (void)store->save_rest(640, size) : store->save_page(page, size);
      std::vector<std::byte> bytes(size.bytes());
      SpanWriter out(bytes);
      rest ? (void)store->save_rest(640, out) : store->save_page(page, out);
      StateReader in(bytes, "state");
      rest ? loaded->load_rest(in) : loaded->load_page(page, in);
    }
    const auto copy = store->deep_copy();
    const auto want = example.feed(*store, 640, 200);
    EXPECT_EQ(example.feed(*loaded, 640, 200), want);
    EXPECT_EQ(example.feed(static_cast<KvLayer&>(*copy), 640, 200), want);
    EXPECT_FALSE(store->truncate(100));
    EXPECT_TRUE(store->truncate(800));
  }
}

TEST(KvBases, RanksBeyondTheChannelsAreRefused) {
  const auto file_of = [](const FeatureMap& keys, const FeatureMap& values) {
    KvBases bases;
    KvBases::Layer layer;
    layer.keys = keys;
    layer.values = values;
    layer.key_basis.resize(keys.rank * keys.channels);
    layer.value_basis.resize(values.rank * values.channels);
    bases.layers.push_back(layer);
    const std::string path =
        (std::filesystem::temp_directory_path() / fmt::format("mneme_ranks_{}", ::getpid())).string();
    bases.save(path);
    const std::string error = error_of([&] { (void)KvBases::load(path); });
    std::filesystem::remove(path);
    return error;
  };
  EXPECT_EQ(file_of({128, 128}, {96, 1}), "no error");
  EXPECT_THAT(file_of({128, 129}, {96, 1}), testing::HasSubstr("found 129 of 128"));
  EXPECT_THAT(file_of({128, 12}, {96, 97}), testing::HasSubstr("found 97 of 96"));
}

TEST(KvBases, FilesComeBackOrAreRefused) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("mneme_bases_{}", ::getpid())).string();
  KvBases bases;
  bases.layers.push_back(KvPolicy::parse("cskv:0.25").fit(kShape, moments_of(text(1))->layers[0]));
  bases.layers.emplace_back();
  bases.save(path);
  const auto loaded = KvBases::load(path);
  EXPECT_EQ(loaded->identity(), bases.identity());
  EXPECT_EQ(loaded->layers[0].key_basis, bases.layers[0].key_basis);
  EXPECT_EQ(loaded->layers[1].keys.rank, 0u);
  const auto size = std::filesystem::file_size(path);
  for (const uint64_t at : {uint64_t{0}, uint64_t{9}, uint64_t{17}, size / 2, size - 1}) {
    bases.save(path);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<long>(at));
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<long>(at));
    file.put(byte);
    file.close();
    EXPECT_THROW(KvBases::load(path), Error) << at;
  }
  std::filesystem::resize_file(path, size / 3);
  EXPECT_THROW(KvBases::load(path), Error);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace mneme
