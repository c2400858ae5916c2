#include "train/data/tokenizer_trainer.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace mneme::train {
namespace {

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581, SentencePiece's visible blank

class TextIterator : public sentencepiece::SentenceIterator {
 public:
  explicit TextIterator(const std::vector<std::string>& texts) : texts_(texts) {}
  bool done() const override { return next_ >= texts_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return texts_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& texts_;
  size_t next_ = 0;
};

/// Bytes of the original text that a piece covers.
size_t covered_bytes(std::string_view piece, bool is_byte) {
  if (is_byte) return 1;
  size_t bytes = 0;
  for (size_t i = 0; i < piece.size();) {
    const bool blank = piece.substr(i).starts_with(kBlank);
    i += blank ? kBlank.size() : 1;
    ++bytes;
  }
  return bytes;
}

}  // namespace

TrainTokenizer TrainTokenizer::train(const std::vector<std::string>& texts, size_t size) {
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(size)},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"normalization_rule_name", "identity"},
      {"character_coverage", "0.9995"},
      {"max_sentence_length", "65536"},
      {"num_threads", "1"},
      {"minloglevel", "2"},
      {"control_symbols", fmt::format("{},{},{},{}", kSystemMark, kUserMark, kAssistantMark, kEndMark)},
  };
  TextIterator iterator(texts);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model);
  if (!status.ok()) {
    fail(ErrorCode::kInvalidArgument, "[tokenizer] expected {} texts that give {} pieces, found: {}", texts.size(), size,
         status.ToString());
  }
  return TrainTokenizer(std::move(model));
}

TrainTokenizer::TrainTokenizer(std::string model)
    : model_(std::move(model)), processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto status = processor_->LoadFromSerializedProto(model_);
  if (!status.ok()) fail(ErrorCode::kCorruptData, "[tokenizer] expected a SentencePiece model, found: {}", status.ToString());
}

TrainTokenizer::TrainTokenizer(TrainTokenizer&&) noexcept = default;
TrainTokenizer& TrainTokenizer::operator=(TrainTokenizer&&) noexcept = default;
TrainTokenizer::~TrainTokenizer() = default;

std::vector<TokenSpan> TrainTokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  const auto status = processor_->Encode(std::string(text), &ids);
  if (!status.ok()) fail(ErrorCode::kInvalidArgument, "[tokenizer] expected text, found: {}", status.ToString());
  std::vector<TokenSpan> tokens;
  tokens.reserve(ids.size());
  size_t at = 0;
  for (const int id : ids) {
    const size_t end = std::min(text.size(), at + covered_bytes(processor_->IdToPiece(id), processor_->IsByte(id)));
    tokens.push_back({id, at, end});
    at = end;
  }
  return tokens;
}

std::string TrainTokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) {
    const std::string& name = processor_->IdToPiece(id);
    if (processor_->IsByte(id)) {
      text += static_cast<char>(std::stoi(name.substr(3, 2), nullptr, 16));
    } else if (is_control(id)) {
      text += name;
    } else {
      for (size_t i = 0; i < name.size();) {
        const bool blank = std::string_view(name).substr(i).starts_with(kBlank);
        text += blank ? ' ' : name[i];
        i += blank ? kBlank.size() : 1;
      }
    }
  }
  return text;
}

size_t TrainTokenizer::size() const { return static_cast<size_t>(processor_->GetPieceSize()); }
std::string TrainTokenizer::piece(int32_t id) const { return processor_->IdToPiece(id); }
float TrainTokenizer::score(int32_t id) const { return processor_->GetScore(id); }
bool TrainTokenizer::is_byte(int32_t id) const { return processor_->IsByte(id); }
bool TrainTokenizer::is_control(int32_t id) const { return processor_->IsControl(id); }

int32_t TrainTokenizer::id_of(std::string_view name) const {
  const int id = processor_->PieceToId(std::string(name));
  if (id == kUnknown) fail(ErrorCode::kNotFound, "[tokenizer] expected the piece {}, found none", name);
  return id;
}

}  // namespace mneme::train
