#include "train/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/test_data.h"

namespace mneme::train {
namespace {

using testing::HasSubstr;

constexpr const char* kValid = R"(
[model]
width = 32
layers = 2
heads = 4
ffn_width = 48
context = 128
[data]
books = "b"
[optimizer]
steps = 10
[[stage]]
until_step = 10
sequence_tokens = 64
batch_tokens = 4096
)";

std::string problem_of(const std::string& text) {
  try {
    parse_recipe(text, "r.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "none";
}

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kValid;
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(Recipe, ReadsAValidOne) {
  const Recipe recipe = parse_recipe(kValid, "r.toml");
  EXPECT_EQ(recipe.model.width, 32u);
  EXPECT_EQ(recipe.model.n_kv_heads, 4u);
  EXPECT_EQ(recipe.model.vocabulary, 4096u);
  EXPECT_EQ(recipe.stages.size(), 1u);
}

TEST(Recipe, ProgramsNeedNoTexts) {
  const Recipe recipe = parse_recipe(replaced("books = \"b\"", "generated_programs = true"), "r.toml");
  EXPECT_TRUE(recipe.mixture.generated_programs);
  EXPECT_FALSE(recipe.mixture.generated_dialogues) << "who wants programs wants those alone";
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "generated_programs = true\ngenerated_dialogues = true")),
              HasSubstr("with data.generated_dialogues, found none"));
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "program_share = 0.5")), HasSubstr("data.generated_programs, found"));
}

TEST(Recipe, ShippedRecipesAreValid) {
  const std::filesystem::path folder = source_path("recipes");
  size_t n_recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".toml") continue;
    const Recipe recipe = parse_recipe(read_text_file(entry.path().string()), entry.path().string());
    EXPECT_GE(recipe.model.context, recipe.stages.back().sequence_tokens);
    ++n_recipes;
  }
  EXPECT_GE(n_recipes, 2u);
}

TEST(Recipe, ReportsEveryProblemWithItsLine) {
  const std::string message = problem_of(replaced("width = 32", "width = \"wide\"\nwidht = 3") + "[extra]\nx = 1\n");
  EXPECT_THAT(message, HasSubstr("r.toml"));
  EXPECT_THAT(message, HasSubstr("line 3: model.width: expected a whole number"));
  EXPECT_THAT(message, HasSubstr("line 4: unknown key model.widht"));
  EXPECT_THAT(message, HasSubstr("unknown section extra"));
  EXPECT_THAT(message, testing::Not(HasSubstr("\n")));
}

TEST(Recipe, Contradictions) {
  EXPECT_THAT(problem_of(replaced("heads = 4", "heads = 5")), HasSubstr("width that is a multiple of the heads"));
  EXPECT_THAT(problem_of(replaced("sequence_tokens = 64", "sequence_tokens = 256")),
              HasSubstr("line 12: stage: expected sequence_tokens of at most the context 128"));
  EXPECT_THAT(problem_of(replaced("until_step = 10", "until_step = 9")), HasSubstr("expected stages up to step 10"));
  EXPECT_THAT(problem_of(replaced("batch_tokens = 4096", "batch_tokens = 5000")),
              HasSubstr("multiple of micro_batch_tokens"));
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "")), HasSubstr("found none of them"));
  EXPECT_THAT(problem_of(replaced("steps = 10", "rate = 1e-3")), HasSubstr("expected the key steps"));
  EXPECT_THAT(problem_of(replaced("steps = 10", "steps = 10\nkind = \"sgdd\"")),
              HasSubstr("expected one of sgd, adamw, adamw8, adafactor, muon, galore, natural-galore, found sgdd"));
  EXPECT_THAT(problem_of(replaced("steps = 10", "steps = -10")), HasSubstr("expected a value from 1"));
}

TEST(Recipe, OptimizerKinds) {
  const auto with = [](const std::string& keys) { return replaced("steps = 10", "steps = 10\n" + keys); };
  const OptimizerOptions natural =
      parse_recipe(with("kind = \"natural-galore\"\nrank = 8\nhistory = 4\nmoments = \"8bit\""), "r").optimizer;
  EXPECT_EQ(natural.kind, OptimizerKind::kNaturalGalore);
  EXPECT_EQ(natural.galore.side, ProjectionSide::kBoth);
  EXPECT_EQ(natural.galore.history, 4u);
  EXPECT_EQ(natural.galore.adam.moments, MomentFormat::k8Bit);
  EXPECT_FALSE(natural.galore.relative_damping) << "as published";
  EXPECT_EQ(natural.galore.damping, 1e-3f);
  const OptimizerOptions relative =
      parse_recipe(with("kind = \"natural-galore\"\nrelative_damping = true"), "r").optimizer;
  EXPECT_EQ(relative.galore.damping, 1.0f);
  const OptimizerOptions galore =
      parse_recipe(with("kind = \"galore\"\nside = \"left\"\non_refresh = \"reset\""), "r").optimizer;
  EXPECT_EQ(galore.galore.side, ProjectionSide::kLeft);
  EXPECT_EQ(galore.galore.history, 0u);
  EXPECT_EQ(parse_recipe(with("kind = \"adamw8\"\nbeta2 = 0.99"), "r").optimizer.adamw.moments, MomentFormat::k8Bit);
  EXPECT_FLOAT_EQ(parse_recipe(with("kind = \"muon\"\nweight_decay = 0.3"), "r").optimizer.muon.weight_decay, 0.3f);
  EXPECT_THAT(
      problem_of(with("kind = \"adamw\"\nrank = 4")),
      HasSubstr("line 13: optimizer.rank: expected only with the kind galore or natural-galore, found it with adamw"));
  EXPECT_THAT(problem_of(with("kind = \"galore\"\nhistory = 4")),
              HasSubstr("optimizer.history: expected only with the kind natural-galore"));
  EXPECT_THAT(problem_of(with("kind = \"galore\"\nrank = 0")), HasSubstr("optimizer.rank: expected a value from 1"));
  EXPECT_THAT(problem_of(with("kind = \"galore\"\nside = \"top\"")),
              HasSubstr("optimizer.side: expected one of auto, left, right, both, found top"));
  EXPECT_THAT(problem_of(with("kind = \"sgd\"\nmomentum = 0\nnesterov = true")),
              HasSubstr("optimizer.nesterov: expected a momentum above 0"));
  EXPECT_THAT(problem_of("[run]\nmicro_batch_tokens = 1024" + with("layerwise = true")),
              HasSubstr("expected batch_tokens equal to micro_batch_tokens 1024 with optimizer.layerwise"));
  const std::string gathering = "[run]\nmicro_batch_tokens = 1024" + with("kind = \"galore\"\nlayerwise = true");
  EXPECT_THAT(problem_of(gathering), HasSubstr("or galore and a clip_norm of 0, found 4096"));
  std::string without_clip = gathering;
  without_clip.replace(without_clip.find("layerwise"), 0, "clip_norm = 0\n");
  EXPECT_TRUE(parse_recipe(without_clip, "r").optimizer.galore.gather);
  EXPECT_FALSE(parse_recipe(with("kind = \"galore\"\nlayerwise = true"), "r").optimizer.galore.gather);
}

TEST(Recipe, DataSources) {
  const Recipe own = parse_recipe(replaced("books = \"b\"", "text = [\"a\", \"b\"]\nchat = [\"c\"]"), "r.toml");
  EXPECT_EQ(own.sources.text, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(own.mixture.generated_dialogues);
  EXPECT_TRUE(parse_recipe(kValid, "r.toml").mixture.generated_dialogues);
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "")), HasSubstr("found none of them"));
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "chat = [\"c\"]\ngenerated_dialogues = true")),
              HasSubstr("with data.generated_dialogues, found none"));
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "text = \"a\"")),
              HasSubstr("line 9: data.text: expected a list of strings"));
  EXPECT_THAT(problem_of(replaced("books = \"b\"", "text = [1]")), HasSubstr("expected a list of strings"));
}

TEST(Recipe, Precision) {
  const std::string before = "[data]";
  const auto with = [&](const std::string& keys) { return replaced(before, "[precision]\n" + keys + "\n" + before); };
  EXPECT_EQ(parse_recipe(kValid, "r.toml").rounding.operands, 0u);
  const Recipe law = parse_recipe(with("format = \"E2M1\"\nblock = 32"), "r.toml");
  EXPECT_EQ(law.rounding.format, (SmallFloat{2, 1}));
  EXPECT_EQ(law.rounding.block, 32u);
  EXPECT_TRUE(law.rounding.rounds(ProductOperand::kWForward));
  EXPECT_FALSE(law.rounding.rounds(ProductOperand::kDyForDw));
  EXPECT_EQ(parse_recipe(with("format = \"E4M3\"\noperands = [\"dy_for_dw\"]"), "r.toml").rounding.operands, 16u);
  EXPECT_THAT(problem_of(with("format = \"E9M9\"")), HasSubstr("expected E0M1 to E8M7"));
  EXPECT_THAT(problem_of(with("block = 32")), HasSubstr("expected a format such as E4M3"));
  EXPECT_THAT(problem_of(with("format = \"E4M3\"\noperands = [\"z\"]")), HasSubstr("found z"));
}

TEST(Recipe, BrokenToml) {
  EXPECT_THAT(problem_of("[model\n"), HasSubstr("expected TOML, found on line 1"));
  EXPECT_THAT(problem_of(std::string("\0\x01\xFF", 3)), HasSubstr("expected TOML"));
  EXPECT_THAT(problem_of(""), HasSubstr("expected at least one [[stage]]"));
  EXPECT_THAT(problem_of("stage = 3\nmodel = 4\n"), HasSubstr("line 2: model: expected a table"));
}

TEST(Recipe, SharedPaths) {
  EXPECT_EQ(recipe_path("some/where"), "some/where");
  EXPECT_THAT(recipe_path("shared:data/books"), testing::EndsWith("/data/books"));
}

}  // namespace
}  // namespace mneme::train
