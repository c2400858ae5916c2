#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace mneme::train {

/// One token of a text: its id and the bytes of the text it covers.
struct TokenSpan {
  int32_t id;
  size_t begin, end;
};

/// The vocabulary of a model being trained: a SentencePiece byte-pair model with byte fallback, single digits, and control
/// tokens for the chat markers. Text is encoded as it is: no added blank in front, nothing normalised.
class TrainTokenizer {
 public:
  /// Trains a vocabulary of `size` pieces on `texts`; deterministic. Throws Error.
  static TrainTokenizer train(const std::vector<std::string>& texts, size_t size);
  /// From a serialised SentencePiece model. Throws Error(kCorruptData).
  explicit TrainTokenizer(std::string model);
  TrainTokenizer(TrainTokenizer&&) noexcept;
  TrainTokenizer& operator=(TrainTokenizer&&) noexcept;
  ~TrainTokenizer();

  std::vector<TokenSpan> encode(std::string_view text) const;
  std::string decode(const std::vector<int32_t>& ids) const;

  size_t size() const;
  std::string piece(int32_t id) const;
  float score(int32_t id) const;
  bool is_byte(int32_t id) const;
  bool is_control(int32_t id) const;
  /// Id of a piece; must exist.
  int32_t id_of(std::string_view piece) const;

  /// The serialised SentencePiece model.
  const std::string& model() const { return model_; }

  static constexpr int32_t kUnknown = 0, kBos = 1, kEos = 2;
  static constexpr std::string_view kSystemMark = "<|system|>", kUserMark = "<|user|>", kAssistantMark = "<|assistant|>",
                                    kEndMark = "<|end|>";

 private:
  std::string model_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace mneme::train
