// Models trained here by the SentencePiece library, against the library's own encoder.
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/tokenizer/test_vocabularies.h"
#include "model/tokenizer/tokenizer.h"

namespace mneme {
namespace {

constexpr Tokenizer::EncodeOptions kPlain{.add_special = false, .parse_special = false};

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  size_t at_ = 0;
};

/// Sentences of invented words, so that pieces of many lengths come up.
std::vector<std::string> corpus() {
  std::mt19937 random(5);
  const std::vector<std::string> syllables = {"ka", "to",  "mi", "ré", "sol", "an", "the", "ing", "qu", "ß",
                                              "un", "der", "ли", "на", "字",  "ا",  "ﬁ",   "x",   "e",  "st"};
  std::vector<std::string> words(300);
  for (std::string& word : words) {
    for (size_t n = 1 + random() % 4; n > 0; --n) word += syllables[random() % syllables.size()];
  }
  std::vector<std::string> lines(1500);
  for (std::string& line : lines) {
    for (size_t n = 3 + random() % 8; n > 0; --n) {
      line.append(words[std::min(random() % words.size(), random() % words.size())]);
      line.append(random() % 7 == 0 ? ", " : " ");
    }
    line.push_back('.');
  }
  return lines;
}

std::unique_ptr<sentencepiece::SentencePieceProcessor> train(std::unordered_map<std::string, std::string> options) {
  const std::vector<std::string> lines = corpus();
  Sentences sentences(lines);
  std::string model;
  options.emplace("minloglevel", "2");
  options.emplace("hard_vocab_limit", "false");
  options.emplace("num_threads", "1");
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
  if (!status.ok()) throw std::runtime_error(status.ToString());
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  if (!processor->LoadFromSerializedProto(model).ok()) throw std::runtime_error("the trained model does not load");
  return processor;
}

/// The bytes of field `number` of a protocol-buffer message, empty when it is absent.
std::string find_field(std::string_view message, uint64_t number) {
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message[0]);
      message.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  };
  while (!message.empty()) {
    const uint64_t key = varint();
    size_t length = 0;
    switch (key & 7) {
      case 0:
        varint();
        break;
      case 1:
        length = 8;
        break;
      case 2:
        length = varint();
        break;
      default:
        length = 4;
    }
    if ((key & 7) == 2 && key >> 3 == number) return std::string(message.substr(0, length));
    message.remove_prefix(length);
  }
  return {};
}

Vocabulary vocabulary_of(const sentencepiece::SentencePieceProcessor& p, std::string model) {
  Vocabulary v;
  v.model = std::move(model);
  for (int id = 0; id < p.GetPieceSize(); ++id) {
    const TokenKind kind = p.IsUnknown(id)   ? TokenKind::kUnknown
                           : p.IsControl(id) ? TokenKind::kControl
                           : p.IsByte(id)    ? TokenKind::kByte
                           : p.IsUnused(id)  ? TokenKind::kUnused
                                             : TokenKind::kNormal;
    add_token(v, p.IdToPiece(id), kind, p.GetScore(id));
  }
  v.special.bos = p.bos_id();
  v.special.eos = p.eos_id();
  v.special.unk = p.unk_id();
  v.charsmap = find_field(find_field(p.serialized_model_proto(), 3), 2);
  return v;
}

std::vector<std::string> test_texts() {
  std::mt19937 random(6);
  std::vector<std::string> texts = corpus();
  texts.resize(150);
  texts.insert(texts.end(), {"", " ", "  ", " kato", "kato ", "ka  to   mi", "ﬁ ﬀ Ⅷ ①２３ ｶﾀｶﾅ", "a\u0301e\u0308",
                             "\u3000x\u00A0y", "日本語", "😀😀 😀", "<s>kato</s>", "<unk>", "<0x41>", "K A T O"});
  for (int i = 0; i < 300; ++i) texts.push_back(random_text(random, 1 + random() % 40));
  return texts;
}

void expect_same(const sentencepiece::SentencePieceProcessor& library, const Tokenizer& ours) {
  for (const std::string& text : test_texts()) {
    if (text.find('\0') != std::string::npos) continue;
    std::vector<int> expected;
    ASSERT_TRUE(library.Encode(text, &expected).ok());
    ASSERT_EQ(ours.encode(text, kPlain), expected) << "text: '" << text << "'";
  }
}

TEST(SentencePiece, BytePairModelsAgree) {
  const auto library = train({{"model_type", "bpe"},
                              {"vocab_size", "700"},
                              {"byte_fallback", "true"},
                              {"normalization_rule_name", "identity"},
                              {"remove_extra_whitespaces", "false"},
                              {"character_coverage", "0.999"}});
  expect_same(*library, *Tokenizer::create(vocabulary_of(*library, "llama")));

  // Pieces that are switched off merge and fall apart again.
  std::vector<std::string> kept;
  for (int id = 300; id < library->GetPieceSize(); id += 2) kept.push_back(library->IdToPiece(id));
  ASSERT_TRUE(library->SetVocabulary({kept.begin(), kept.end()}).ok());
  const Vocabulary reduced = vocabulary_of(*library, "llama");
  ASSERT_GT(std::count(reduced.kinds.begin(), reduced.kinds.end(), TokenKind::kUnused), 50);
  expect_same(*library, *Tokenizer::create(reduced));
}

TEST(SentencePiece, UnigramModelsAgree) {
  for (const bool collapse : {true, false}) {
    const auto library = train({{"model_type", "unigram"},
                                {"vocab_size", "500"},
                                {"remove_extra_whitespaces", collapse ? "true" : "false"},
                                {"character_coverage", "0.999"}});
    Vocabulary v = vocabulary_of(*library, "t5");
    ASSERT_GT(v.charsmap.size(), 1000u);
    v.add_space_prefix = true;
    v.remove_extra_whitespaces = collapse;
    expect_same(*library, *Tokenizer::create(v));
  }
}

}  // namespace
}  // namespace mneme
