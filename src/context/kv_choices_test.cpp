#include "context/kv_choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_error.h"

namespace mneme {
namespace {

using kernels::CodedFormat;

std::string refusal(std::string_view text) {
  return error_of([&] { KvChoices::parse(text); });
}

TEST(KvChoices, ReadsWhatItIsTold) {
  EXPECT_FALSE(KvChoices::parse("f16").seals());
  EXPECT_EQ(KvChoices::parse("f32").plain, DType::kF32);

  const KvChoices kivi = KvChoices::parse("kivi:2");
  EXPECT_TRUE(kivi.keys.coded && kivi.values.coded);
  EXPECT_EQ(kivi.keys.format, (CodedFormat{2, CodedFormat::Groups::kAlongLanes, CodedFormat::Scales::kFloat16, 32}));
  EXPECT_EQ(kivi.values.format, kivi.keys.format);
  EXPECT_EQ(kivi.residual, 64u);

  const KvChoices token = KvChoices::parse("token:4,group=64,residual=32");
  EXPECT_EQ(token.keys.format, (CodedFormat{4, CodedFormat::Groups::kAlongDepth, CodedFormat::Scales::kFloat16, 64}));
  EXPECT_EQ(token.values.format.groups, CodedFormat::Groups::kAlongLanes);
  EXPECT_EQ(token.residual, 32u);

  const KvChoices turned = KvChoices::parse("kivi:bits=2,keys=token,values=channel");
  EXPECT_EQ(turned.keys.format.groups, CodedFormat::Groups::kAlongDepth);
  EXPECT_EQ(turned.values.format.groups, CodedFormat::Groups::kAlongDepth);

  const KvChoices both = KvChoices::parse("think:0.5+kivi:4");
  EXPECT_FLOAT_EQ(both.prune, 0.5f);
  EXPECT_EQ(both.keys.format.bits, 4);
  EXPECT_TRUE(KvChoices::parse("bfp:4").sort);
  EXPECT_FALSE(KvChoices::parse("bfp:4,sort=off").sort);
  EXPECT_EQ(KvChoices::parse("window:sink=4,recent=100").window, (KvChoices::Window{4, 100}));
  KvChoices::Shadow shadow;
  EXPECT_EQ(KvChoices::parse("shadowkv").shadow, shadow);
  shadow.rank = 64;
  shadow.share = 0.02f;
  shadow.on_disk = true;
  EXPECT_EQ(KvChoices::parse("shadowkv:64,budget=2%,values=disk").shadow, shadow);
  shadow = {.rank = 160, .share = 0, .tokens = 2048, .outliers = 0, .fit = 512, .on_disk = false};
  EXPECT_EQ(KvChoices::parse("shadowkv:budget=2048,outliers=0,fit=512").shadow, shadow);
  KvChoices::InStorage storage;
  EXPECT_EQ(KvChoices::parse("instinfer").storage, storage);
  EXPECT_EQ(KvChoices::parse("instinfer:disk,density=1/8").storage, storage);
  storage = {.density = 0.25f, .channels = 16, .workers = {"near:7117", "/tmp/b.sock"}};
  EXPECT_EQ(KvChoices::parse("instinfer:near:7117,at=/tmp/b.sock,density=1/4,channels=16").storage, storage);
  EXPECT_EQ(KvChoices::parse("mikv").importance, (KvChoices::Importance{0.2f, 16, 2, true}));
  EXPECT_EQ(KvChoices::parse("mikv:hi=8,lo=3,keep=0.1,balance=off").importance, (KvChoices::Importance{0.1f, 8, 3, false}));
  EXPECT_EQ(KvChoices::parse("h2o:0.3").importance, (KvChoices::Importance{0.3f, 16, 0, true}));
  EXPECT_EQ(KvChoices::parse("minicache:start=0.25+kivi:4").sharing, (KvChoices::Sharing{0.25f, 0.6f, 0.05f}));
  EXPECT_EQ(KvChoices::parse("window:100").window, (KvChoices::Window{8, 100}));
  EXPECT_EQ(KvChoices::parse("cskv:0.5").features, (KvChoices::Features{0.5f, 0.5f, false}));
  EXPECT_EQ(KvChoices::parse("cskv:0.5,ranks=equal").features, (KvChoices::Features{0.5f, 0.5f, false}));
  EXPECT_EQ(KvChoices::parse("cskv:r=0.5,values=1,ranks=measured+kivi:4").features,
            (KvChoices::Features{0.5f, 1.0f, true}));
}

TEST(KvChoices, SaysWhatIsWrong) {
  using testing::HasSubstr;
  EXPECT_THAT(refusal("kvi:2"), HasSubstr("did you mean 'kivi'?"));
  EXPECT_THAT(refusal("q3"), HasSubstr("found 'q3'"));
  EXPECT_THAT(refusal("kivi"), HasSubstr("2, 3, 4 or 8 bits"));
  EXPECT_THAT(refusal("kivi:5"), HasSubstr("found '5'"));
  EXPECT_THAT(refusal("kivi:2,groups=32"), HasSubstr("found 'groups'"));
  EXPECT_THAT(refusal("kivi:2,group=33"), HasSubstr("multiple of 32"));
  EXPECT_THAT(refusal("kivi:2,keys=row"), HasSubstr("token, channel"));
  EXPECT_THAT(refusal("kivi:2,residual=-1"), HasSubstr("residual"));
  EXPECT_THAT(refusal("kivi:2,residual=1,residual=2"), HasSubstr("each key once"));
  EXPECT_THAT(refusal("kivi:2+token:4"), HasSubstr("one codec"));
  EXPECT_THAT(refusal("think:1.5"), HasSubstr("between 0 and 1"));
  EXPECT_THAT(refusal("think"), HasSubstr("between 0 and 1"));
  EXPECT_THAT(refusal("think:0.5+bfp:4"), HasSubstr("one channel map"));
  EXPECT_THAT(refusal("mikv+kivi:2"), HasSubstr("hi and lo"));
  EXPECT_THAT(refusal("mikv:hi=4,lo=4"), HasSubstr("hi above lo"));
  EXPECT_THAT(refusal("mikv:residual=100"), HasSubstr("multiple of 64"));
  EXPECT_THAT(refusal("h2o:lo=2"), HasSubstr("found 'lo'"));
  EXPECT_THAT(refusal("minicache+think:0.5"), HasSubstr("same tokens"));
  EXPECT_THAT(refusal("minicache+h2o"), HasSubstr("same tokens"));
  EXPECT_THAT(refusal("shadowkv+kivi:2"), HasSubstr("shadowkv alone"));
  EXPECT_THAT(refusal("shadowkv:budget=0%"), HasSubstr("budget in tokens, or in percent"));
  EXPECT_THAT(refusal("shadowkv:budget=1.5"), HasSubstr("budget in tokens, or in percent"));
  EXPECT_THAT(refusal("shadowkv:fit=300"), HasSubstr("multiple of 256"));
  EXPECT_THAT(refusal("shadowkv:values=tape"), HasSubstr("ram, disk"));
  EXPECT_THAT(refusal("instinfr:density=1"), HasSubstr("did you mean 'instinfer'?"));
  EXPECT_THAT(refusal("instinfer+kivi:4"), HasSubstr("instinfer alone"));
  EXPECT_THAT(refusal("bf16+instinfer"), HasSubstr("bf16 alone"));
  EXPECT_THAT(refusal("instinfer:density=1/0"), HasSubstr("density above 0"));
  EXPECT_THAT(refusal("instinfer:density=2"), HasSubstr("density above 0"));
  EXPECT_THAT(refusal("instinfer:tape"), HasSubstr("disk, HOST:PORT"));
  EXPECT_THAT(refusal("instinfer:near:70000"), HasSubstr("disk, HOST:PORT"));
  EXPECT_THAT(refusal("instinfer:a:1,at=a:1"), HasSubstr("each worker once"));
  EXPECT_THAT(refusal("instinfer:channels=12"), HasSubstr("8, 16 or 32"));
  EXPECT_THAT(refusal("instinfer:densty=1"), HasSubstr("found 'densty'"));
  EXPECT_THAT(refusal("cskv:0.5,ranks=some"), HasSubstr("equal, measured"));
  EXPECT_THAT(refusal("cskv:1,ranks=measured"), HasSubstr("nothing to share out"));
  EXPECT_THAT(refusal("cskv:0.5,ranks=measured+think:0.5"), HasSubstr("features are no channels"));
  EXPECT_THAT(refusal("window+kivi:2"), HasSubstr("window alone"));
  EXPECT_THAT(refusal("f32+kivi:2"), HasSubstr("f32 alone"));
  EXPECT_THAT(refusal(""), HasSubstr("found ''"));
  EXPECT_THAT(refusal("kivi:2+"), HasSubstr("found ''"));
  EXPECT_THAT(refusal("kivi:2,"), HasSubstr("key=value"));
}

}  // namespace
}  // namespace mneme
