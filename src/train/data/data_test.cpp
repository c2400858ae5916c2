#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/data/mixture.h"
#include "train/data/word_lists.h"

namespace mneme::train {
namespace {

const DataSources& sources() {
  static const DataSources two_stories =
      open_sources({}, {"Once upon a time there was a small boat. It sailed to the sea. The boat came home at night.",
                        "A girl had a red hat. The wind took it. She ran and found the hat in a tree. She was glad."});
  return two_stories;
}

const TextSource& texts() {
  return *sources().texts;
}

/// A tokenizer trained once on generated dialogues.
const TrainTokenizer& tokenizer() {
  static const TrainTokenizer trained = [] {
    std::vector<std::string> sample;
    const DialogueMaker maker(texts(), Split::kTrain);
    for (uint64_t i = 0; i < 60; ++i) {
      PhiloxStream random(4, i);
      for (const Turn& turn : maker.make(random, {})) sample.push_back(turn.text);
    }
    return TrainTokenizer::train(sample, 600);
  }();
  return trained;
}

TEST(VocabularySplit, HalvesAreDisjointAndBothInhabited) {
  PhiloxStream random(1);
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    std::set<std::string> names;
    for (int i = 0; i < 300; ++i) {
      const std::string name = invent_name(random, split);
      EXPECT_EQ(split_of(name), split);
      EXPECT_TRUE(name[0] >= 'A' && name[0] <= 'Z') << name;
      names.insert(name);
      EXPECT_EQ(split_of(invent_number(random, split, 4)), split);
    }
    EXPECT_GT(names.size(), 280u);
  }
}

TEST(FactKinds, EveryKindAnswersInBothHalves) {
  PhiloxStream random(2);
  const std::vector<std::string> people{"Ann"};
  std::set<size_t> seen;
  for (int i = 0; i < 2000; ++i) seen.insert(invent_fact(random, i % 2 == 0 ? Split::kTrain : Split::kHeldOut, people).kind);
  EXPECT_EQ(seen.size(), fact_kinds().size());
  for (const FactKind& kind : fact_kinds()) {
    for (const auto pattern : {kind.answer, kind.known}) EXPECT_NE(pattern.find("{v}"), std::string_view::npos) << pattern;
    for (const auto& list : {kind.statements, kind.updates}) {
      for (const auto pattern : list) EXPECT_NE(pattern.find("{v}"), std::string_view::npos) << pattern;
    }
    for (const auto pattern : kind.questions) EXPECT_EQ(pattern.find("{v}"), std::string_view::npos) << pattern;
  }
  EXPECT_EQ(fill("{s} has {v}, {s}.", "A", "b"), "A has b, A.");
}

TEST(FactKinds, OpenWordsReplaceListsButNotNames) {
  PhiloxStream random(9);
  const std::vector<std::string> open{"zebra"};
  int colours = 0, names = 0;
  for (int i = 0; i < 1000; ++i) {
    colours += invent_value(random, Split::kTrain, ValueType::kColour, open).find("zebra") != std::string::npos;
    names += invent_value(random, Split::kTrain, ValueType::kName, open).find("zebra") != std::string::npos;
  }
  EXPECT_NEAR(colours, 700, 60);
  EXPECT_EQ(names, 0);
}

TEST(TextSource, TrainingWordsAreWholeLowerCaseWordsOfTheTrainingHalf) {
  const auto words = texts().train_words();
  EXPECT_TRUE(std::is_sorted(words.begin(), words.end()));
  EXPECT_GT(words.size(), 5u);
  const std::set<std::string> all{"once", "upon",  "time", "there", "small", "boat",  "sailed", "came",
                                  "home", "night", "girl", "wind",  "took",  "found", "tree",   "glad"};
  for (const std::string& word : words) {
    EXPECT_TRUE(all.contains(word)) << word;
    EXPECT_EQ(split_of(word), Split::kTrain) << word;
  }
}

/// Replays a dialogue: every answer must be the newest value that was stated for its subject.
TEST(Dialogue, AnswersAreTheNewestStatedValues) {
  const DialogueMaker maker(texts(), Split::kTrain);
  size_t answers = 0, refusals = 0, updated = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    PhiloxStream random(5, i);
    DialogueOptions options;
    options.max_chars = 600 + 10 * i;
    const auto turns = maker.make(random, options);
    std::string so_far;
    for (const Turn& turn : turns) {
      if (turn.kind == TurnKind::kAnswer) {
        ++answers;
        const std::string value = turn.text.substr(turn.value_begin, turn.value_end - turn.value_begin);
        ASSERT_FALSE(value.empty());
        EXPECT_NE(so_far.find(value), std::string::npos) << turn.text;
        updated += so_far.find("now") != std::string::npos;
      }
      if (turn.kind == TurnKind::kRefusal) {
        ++refusals;
        EXPECT_TRUE(turn.text.starts_with("I don't know ")) << turn.text;
      }
      if (turn.kind == TurnKind::kStatement) so_far += turn.text + "\n";
    }
    EXPECT_GE(turns.size(), 4u);
  }
  EXPECT_GT(answers, 800u);
  EXPECT_GT(refusals, 200u);
  EXPECT_GT(updated, 100u);
}

TEST(Dialogue, ProbesHaveTheDistanceTheyWereAskedFor) {
  const DialogueMaker maker(texts(), Split::kHeldOut);
  for (const size_t filler : {0u, 500u, 4000u}) {
    for (const bool answerable : {true, false}) {
      PhiloxStream random(6, filler);
      const auto turns = maker.make_probe(random, 4, filler, answerable);
      EXPECT_EQ(turns.back().kind, answerable ? TurnKind::kAnswer : TurnKind::kRefusal);
      size_t chars = 0;
      for (const Turn& turn : turns) {
        if (turn.kind == TurnKind::kText) chars += turn.text.size();
      }
      EXPECT_LE(chars, filler + 200);
      if (filler > 1000) {
        EXPECT_GT(chars, filler / 2);
      }
    }
  }
}

TEST(TextSource, PlainTextAndCuts) {
  EXPECT_EQ(plain_text("\u201CHi\u201D \u2014 it\u2019s  _me_\n*now*\u2026"), "\"Hi\" - it's me now...");
  EXPECT_EQ(cut_at_sentence("One two. Three four. Five", 15), "One two.");
  EXPECT_EQ(cut_at_sentence("One two three four", 9), "One two");
  EXPECT_EQ(cut_at_sentence("Short.", 100), "Short.");
}

TEST(TextSource, ReadsBooksAndRefusesNothing) {
  const auto folder = std::filesystem::temp_directory_path() / "mneme_text_source_test";
  std::filesystem::create_directories(folder);
  std::string book = "# Title\n\n-------\n";
  for (int i = 0; i < 6; ++i) book += "This is paragraph number " + std::to_string(i) + " of a rather short book. It ends here.\n\n";
  AtomicFile file((folder / "a.txt").string());
  file.write(book);
  file.commit();
  const TextSource source({}, folder.string());
  PhiloxStream random(1);
  const std::string passage = source.passage(random, Split::kTrain, 200);
  EXPECT_TRUE(passage.starts_with("This is paragraph")) << passage;
  EXPECT_TRUE(passage.ends_with(".")) << passage;
  std::filesystem::remove_all(folder);
  EXPECT_THROW(TextSource({}, folder.string()), Error);
  EXPECT_THROW(TextSource({}, ""), Error);
}

TEST(TrainTokenizer, RoundTripsAndCoversTheText) {
  for (const std::string text : {"My cat is called Velmora.", "  two  blanks 4821!", "new\nline, caf\u00E9 \u263A", ""}) {
    std::vector<int32_t> ids;
    size_t at = 0;
    for (const TokenSpan& token : tokenizer().encode(text)) {
      EXPECT_EQ(token.begin, at);
      at = token.end;
      ids.push_back(token.id);
    }
    EXPECT_EQ(at, text.size());
    EXPECT_EQ(tokenizer().decode(ids), text);
  }
  EXPECT_EQ(tokenizer().size(), 600u);
  EXPECT_TRUE(tokenizer().is_control(tokenizer().id_of(TrainTokenizer::kEndMark)));
  // Chat markers in a user's text are plain characters, never the control tokens.
  for (const TokenSpan& token : tokenizer().encode("<|end|>")) EXPECT_FALSE(tokenizer().is_control(token.id));
  EXPECT_THROW(TrainTokenizer("not a model"), Error);
  EXPECT_THROW(TrainTokenizer::train({"a"}, 100000), Error);
}

TEST(ChatEncoder, WeightsFollowTheKindOfTurn) {
  Turn answer{Speaker::kAssistant, TurnKind::kAnswer, "Your cat is called Velmora."};
  answer.value_begin = 19;
  answer.value_end = 26;
  const std::vector<Turn> turns{{Speaker::kUser, TurnKind::kQuestion, "What is my cat called?"}, answer};
  const WeightedTokens tokens = encode_dialogue(tokenizer(), turns, {});
  EXPECT_EQ(tokens.ids[0], TrainTokenizer::kBos);
  std::string value, unweighted;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.weights[i] == 2.0f) value += tokenizer().decode({tokens.ids[i]});
    if (tokens.weights[i] == 0.0f) unweighted += tokenizer().decode({tokens.ids[i]});
  }
  EXPECT_TRUE(value == "Velmora" || value == " Velmora") << value;  // the blank may be a part of the first token
  EXPECT_EQ(unweighted, "<s><|user|>What is my cat called?<|end|><|assistant|>");
  EXPECT_EQ(tokens.weights.back(), 1.0f);
}

TEST(Mixture, FillsExactlyAndRepeats) {
  const Mixture mixture(tokenizer(), sources(), {}, 7);
  StageOptions stage;
  stage.sequence_tokens = 128;
  stage.batch_tokens = 512;
  stage.short_every = 2;
  const OwnedBatch a = mixture.batch(3, stage), b = mixture.batch(3, stage), c = mixture.batch(4, stage);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_NE(a.tokens, c.tokens);
  ASSERT_EQ(a.tokens.size(), 512u);
  EXPECT_EQ(a.sequence_starts.front(), 0u);
  EXPECT_EQ(a.sequence_starts.back(), 512u);
  for (size_t slot = 0; slot <= 4; ++slot) {
    EXPECT_TRUE(std::find(a.sequence_starts.begin(), a.sequence_starts.end(), slot * 128) != a.sequence_starts.end());
  }
  for (size_t t = 0; t + 1 < a.tokens.size(); ++t) {
    const bool last = std::find(a.sequence_starts.begin(), a.sequence_starts.end(), t + 1) != a.sequence_starts.end();
    if (!last) {
      EXPECT_EQ(a.targets[t], a.tokens[t + 1]);
    }
  }
  double total = 0;
  for (const float w : a.weights) total += w;
  EXPECT_NEAR(a.view().loss_scale, 1 / total, 1e-9);
}

TEST(Mixture, HasProgramsWhereTheyAreWanted) {
  StageOptions stage;
  stage.sequence_tokens = 128;
  stage.batch_tokens = 2048;
  MixtureOptions options;
  options.generated_dialogues = false;
  options.generated_programs = true;
  const auto text_of = [&](const DataSources& from) {
    const OwnedBatch batch = Mixture(tokenizer(), from, options, 7).batch(3, stage);
    EXPECT_EQ(batch.tokens.size(), 2048u);
    return tokenizer().decode(batch.tokens);
  };
  const auto has_dialogues = [](const std::string& text) { return text.find("<|user|>") != std::string::npos; };
  const auto has_programs = [](const std::string& text) { return text.find("(def f") != std::string::npos; };
  const DataSources nothing;
  stage.plain_text_share = 0;
  EXPECT_TRUE(has_programs(text_of(nothing)));
  EXPECT_TRUE(has_programs(text_of(sources())));
  EXPECT_FALSE(has_dialogues(text_of(sources())));
  options.generated_dialogues = true;
  EXPECT_TRUE(has_programs(text_of(sources())));
  EXPECT_TRUE(has_dialogues(text_of(sources())));
  options.program_share = 0;
  EXPECT_FALSE(has_programs(text_of(sources())));
  options.generated_dialogues = false;
  stage.plain_text_share = 1;
  EXPECT_FALSE(has_programs(text_of(sources())));
}

}  // namespace
}  // namespace mneme::train
