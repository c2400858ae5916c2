#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "model/prompt_segment.h"
#include "model/tokenizer/piece_table.h"
#include "model/tokenizer/special_partition.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/token_table.h"
#include "model/tokenizer/vocabulary.h"

namespace mneme {

/// Turns text into token ids and back, as the vocabulary of a model file says.
///
///   const auto tokenizer = Tokenizer::load(file.metadata());
///   const std::vector<TokenId> ids = tokenizer->encode("Once upon a time");
///   const std::string text = tokenizer->detokenize(ids);
///
/// Immutable: any number of threads may use one. Text is bytes; what is no valid UTF-8 is encoded byte by byte where
/// the vocabulary has tokens for bytes. Control tokens come out of text only where the caller says that it may be
/// trusted; text of a user therefore never becomes one, not even through merges.
class Tokenizer {
 public:
  struct EncodeOptions {
    bool add_special = true;     ///< Put BOS in front and EOS or SEP behind, as the vocabulary asks.
    bool parse_special = false;  ///< Recognise control tokens in the text: for templates, not for users' text.
  };

  /// From tokenizer.ggml.*. Throws Error that names the key.
  static std::unique_ptr<Tokenizer> load(const Metadata& metadata);
  static std::unique_ptr<Tokenizer> create(const Vocabulary& vocabulary);

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  ~Tokenizer();

  /// At most 2^30 bytes of text.
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options) const;
  std::vector<TokenId> encode(std::string_view text) const { return encode(text, EncodeOptions{}); }
  /// Encodes the concatenation of all segments; control tokens are recognised only where all of their text is special.
  std::vector<TokenId> encode_segments(std::span<const PromptSegment> segments, bool add_special) const;

  /// The bytes of a token, maybe a part of a character. Control and unknown tokens have none unless `special`. Valid as
  /// long as the tokenizer. Throws Error(kInvalidArgument) for an id outside the vocabulary.
  std::string_view piece(TokenId id, bool special = false) const;

  /// The inverse of encode(). The one space that encoding puts in front of text is taken away again, at the start and
  /// behind special tokens. `remove_special` drops a leading BOS and a trailing EOS or SEP, `unparse_special` renders
  /// control tokens. Word pieces, whose spacing is lost, are tidied by clean_spaces(). Throws Error(kInvalidArgument)
  /// for an id outside the vocabulary.
  std::string detokenize(std::span<const TokenId> ids, bool remove_special = false, bool unparse_special = false) const;
  /// Whether the model's own decoder runs clean_spaces() on its text.
  bool cleans_spaces() const { return clean_spaces_; }
  /// Whether a space at the start of the token behind `previous` (nothing: at the start of a text) was put there by
  /// encode() and is no part of the text.
  bool prefixes_space_after(std::optional<TokenId> previous) const;

  size_t vocab_size() const { return table_.size(); }
  TokenKind kind(TokenId id) const;
  float score(TokenId id) const;
  /// The text as it is stored, in the vocabulary's escaping.
  std::string_view text(TokenId id) const;
  std::optional<TokenId> find(std::string_view stored_text) const { return table_.find(stored_text); }

  bool is_end_of_generation(TokenId id) const;
  /// Ascending.
  std::span<const TokenId> end_of_generation_tokens() const { return end_of_generation_; }
  const SpecialTokens& special() const { return special_; }
  std::optional<TokenId> bos() const { return special_.bos; }
  std::optional<TokenId> eos() const { return special_.eos; }
  std::optional<TokenId> eot() const { return special_.eot; }
  std::optional<TokenId> unk() const { return special_.unk; }
  std::optional<TokenId> pad() const { return special_.pad; }
  std::optional<TokenId> sep() const { return special_.sep; }
  std::optional<TokenId> cls() const { return special_.cls; }
  std::optional<TokenId> mask() const { return special_.mask; }
  bool adds_bos() const { return add_bos_; }
  bool adds_eos() const { return add_eos_; }
  bool adds_sep() const { return add_sep_; }

  /// "llama", "gpt2", "gemma4", "bert" or "t5".
  const std::string& model() const { return model_; }
  /// Bytes held, for the ledger.
  uint64_t memory_bytes() const;

 private:
  friend class StreamingDetokenizer;

  explicit Tokenizer(const Vocabulary& vocabulary);

  void set_up_spm(const Vocabulary& vocabulary);
  void set_up_bpe(const Vocabulary& vocabulary);
  void set_up_word_piece(const Vocabulary& vocabulary);
  void set_up_unigram(const Vocabulary& vocabulary);
  /// Completes the roles and adjusts kinds; comes before anything that reads them.
  void set_special(SpecialTokens known);
  /// Decides what encode() adds, from the file or else from the given defaults.
  void set_added(const Vocabulary& vocabulary, bool bos, bool eos, bool sep);
  std::vector<TokenId> encode_trusting(std::string_view text, std::span<const TextRange> trusted,
                                       bool add_special) const;
  /// Appends the bytes of a token. `drop_space`: whether a space in front of it was added by encode(); is set for the
  /// next.
  void append_piece(TokenId id, bool unparse_special, bool& drop_space, std::string& out) const;
  void check_id(TokenId id) const;

  std::string model_;
  TokenTable table_;
  SpecialTokens special_;
  std::vector<TokenId> end_of_generation_;
  std::vector<TokenId> shown_control_;  ///< Control tokens with a visible piece, ascending.
  bool add_bos_ = false, add_eos_ = false, add_sep_ = false;
  bool add_space_prefix_ = false;
  bool word_pieces_ = false;  ///< Every word starts with a space; only the first one's is not meant.
  bool clean_spaces_ = false;
  PieceTable pieces_;
  SpecialPartition partition_;
  std::unique_ptr<const TextEncoder> encoder_;
};

/// Turns a stream of tokens into text, complete characters only.
///
/// What comes out over time is what detokenize() makes of the whole, except that bytes which form no character come out
/// as U+FFFD. `previous` is the token before the first one pushed, nothing at the start of a text: it decides whether a
/// leading space is dropped.
class StreamingDetokenizer {
 public:
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, std::optional<TokenId> previous = std::nullopt,
                                bool unparse_special = false);

  /// Takes one token and returns the text that is complete now.
  std::string push(TokenId id);
  /// What is left at the end: U+FFFD when a character stayed incomplete.
  std::string finish() { return stream_.finish(); }

 private:
  const Tokenizer* tokenizer_;
  bool unparse_special_;
  bool drop_space_;
  Utf8Stream stream_;
};

}  // namespace mneme
