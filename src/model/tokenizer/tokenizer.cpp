#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "model/tokenizer/bpe_encoder.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/spm_encoder.h"
#include "model/tokenizer/unigram_encoder.h"
#include "model/tokenizer/word_piece_encoder.h"

namespace mneme {
namespace {

constexpr size_t kMostTextBytes = size_t{1} << 30;

bool is_member(std::span<const TokenId> ascending, TokenId id) {
  return std::binary_search(ascending.begin(), ascending.end(), id);
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(const Metadata& metadata) {
  return create(read_vocabulary(metadata));
}

std::unique_ptr<Tokenizer> Tokenizer::create(const Vocabulary& vocabulary) {
  return std::unique_ptr<Tokenizer>(new Tokenizer(vocabulary));
}

Tokenizer::~Tokenizer() = default;

Tokenizer::Tokenizer(const Vocabulary& v) : model_(v.model), table_(v) {
  if (model_ == "llama") {
    set_up_spm(v);
  } else if (model_ == "gpt2" || model_ == "gemma4") {
    set_up_bpe(v);
  } else if (model_ == "bert") {
    set_up_word_piece(v);
  } else if (model_ == "t5") {
    set_up_unigram(v);
  } else {
    const std::string quoted = Json(model_).dump(-1, ' ', true, Json::error_handler_t::replace);
    fail(ErrorCode::kUnsupported,
         "[tokenizer] expected llama, gpt2, gemma4, bert or t5, found {}, in tokenizer.ggml.model", quoted);
  }
  partition_ = SpecialPartition(table_, v.name, v.pre);
}

void Tokenizer::set_up_spm(const Vocabulary& v) {
  SpecialTokens known = v.special;
  if (!known.bos && table_.contains(1)) known.bos = 1;
  if (!known.eos && table_.contains(2)) known.eos = 2;
  if (!known.unk) known.unk = 0;
  set_special(known);
  set_added(v, true, false, false);
  add_space_prefix_ = v.add_space_prefix.value_or(true);
  pieces_ = PieceTable(table_, Spelling::kMarkedSpaces);
  encoder_ = std::make_unique<SpmEncoder>(table_, add_space_prefix_, special_.unk);
}

void Tokenizer::set_up_bpe(const Vocabulary& v) {
  const PreTokenizer& rules = find_pre_tokenizer(model_ == "gemma4" ? "gemma4" : std::string_view(v.pre));
  SpecialTokens known = v.special;
  // The default id is the end of text of one early family; elsewhere it is an ordinary token.
  constexpr TokenId kDefaultEnd = 11;
  if (table_.contains(kDefaultEnd) && table_.kind(kDefaultEnd) == TokenKind::kControl) {
    if (!known.bos && rules.default_bos) known.bos = kDefaultEnd;
    if (!known.eos) known.eos = kDefaultEnd;
  }
  set_special(known);
  set_added(v, rules.add_bos || model_ == "gemma4", false, rules.add_sep);
  clean_spaces_ = rules.clean_spaces;
  pieces_ = PieceTable(table_, rules.spaces_marked ? Spelling::kMarkedSpaces : Spelling::kMappedBytes);
  encoder_ = std::make_unique<BpeEncoder>(table_, rules, v.merges);
}

void Tokenizer::set_up_word_piece(const Vocabulary& v) {
  SpecialTokens known = v.special;
  const auto set_default = [&](std::optional<TokenId>& role, TokenId id) {
    if (!role && table_.contains(id)) role = id;
  };
  if (!known.bos) known.bos = known.cls;
  set_default(known.bos, 101);
  if (!known.cls) known.cls = known.bos;
  set_default(known.unk, 100);
  set_default(known.sep, 102);
  set_default(known.pad, 0);
  set_default(known.mask, 103);
  set_special(known);
  set_added(v, true, false, true);
  clean_spaces_ = word_pieces_ = true;
  pieces_ = PieceTable(table_, Spelling::kMarkedSpaces);
  const bool lowercase = v.lowercase.value_or(true);
  const WordPieceRules rules{lowercase, v.strip_accents.value_or(lowercase)};
  encoder_ = std::make_unique<WordPieceEncoder>(table_, rules, special_.unk);
}

void Tokenizer::set_up_unigram(const Vocabulary& v) {
  SpecialTokens known = v.special;
  if (!known.eos && table_.contains(1)) known.eos = 1;
  if (!known.unk && table_.contains(2)) known.unk = 2;
  if (!known.pad) known.pad = 0;
  set_special(known);
  set_added(v, false, true, false);
  add_space_prefix_ = v.add_space_prefix.value_or(false);
  pieces_ = PieceTable(table_, Spelling::kMarkedSpaces);
  const UnigramRules rules{add_space_prefix_, v.remove_extra_whitespaces.value_or(false)};
  encoder_ = std::make_unique<UnigramEncoder>(table_, rules, v.charsmap, special_.unk);
}

void Tokenizer::set_special(SpecialTokens known) {
  for (const auto& role :
       {known.bos, known.eos, known.eot, known.eom, known.unk, known.sep, known.pad, known.cls, known.mask,
        known.fim_prefix, known.fim_suffix, known.fim_middle, known.fim_pad, known.fim_repo, known.fim_file}) {
    if (role) check_id(*role);
  }
  special_ = detect_special_tokens(table_, known);
  EndOfGeneration end = detect_end_of_generation(table_, special_);
  end_of_generation_ = std::move(end.tokens);
  shown_control_ = std::move(end.shown);
  std::sort(shown_control_.begin(), shown_control_.end());
}

void Tokenizer::set_added(const Vocabulary& v, bool bos, bool eos, bool sep) {
  const auto decide = [](std::string_view name, std::optional<bool> asked, bool by_default, bool known) {
    if (asked.value_or(false) && !known) {
      fail(ErrorCode::kCorruptData, "[tokenizer] tokenizer.ggml.add_{}_token is true, but the file names no such token",
           name);
    }
    return asked.value_or(by_default) && known;
  };
  add_bos_ = decide("bos", v.add_bos, bos, special_.bos.has_value());
  add_eos_ = decide("eos", v.add_eos, eos, special_.eos.has_value());
  add_sep_ = decide("sep", v.add_sep, sep, special_.sep.has_value());
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const TextRange all{0, text.size()};
  return encode_trusting(text, {&all, options.parse_special ? size_t{1} : size_t{0}}, options.add_special);
}

std::vector<TokenId> Tokenizer::encode_segments(std::span<const PromptSegment> segments, bool add_special) const {
  std::string text;
  std::vector<TextRange> trusted;
  for (const PromptSegment& segment : segments) {
    const TextRange range{text.size(), text.size() + segment.text.size()};
    text += segment.text;
    if (!segment.special) continue;
    if (!trusted.empty() && trusted.back().end == range.begin) {
      trusted.back().end = range.end;
    } else {
      trusted.push_back(range);
    }
  }
  return encode_trusting(text, trusted, add_special);
}

std::vector<TokenId> Tokenizer::encode_trusting(std::string_view text, std::span<const TextRange> trusted,
                                                bool add_special) const {
  if (text.size() >= kMostTextBytes) {
    fail(ErrorCode::kInvalidArgument, "[tokenize] expected less than {} bytes of text, found {}", kMostTextBytes,
         text.size());
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 2);
  if (add_special && add_bos_) ids.push_back(*special_.bos);
  size_t dropped = 0;
  for (const Fragment& fragment : partition_.split(text, trusted)) {
    if (fragment.token >= 0) {
      ids.push_back(fragment.token);
    } else {
      dropped += encoder_->encode(text.substr(fragment.range.begin, fragment.range.end - fragment.range.begin), ids);
    }
  }
  if (dropped > 0) log().warn("the vocabulary has no token for {} bytes of the text; they were left out", dropped);
  if (add_special && add_bos_ && ids.size() >= 2 && ids[1] == *special_.bos) {
    log().warn("the text begins with the BOS token that was added in front of it; now there are two");
  }
  if (add_special && add_eos_) ids.push_back(*special_.eos);
  if (add_special && add_sep_ && !(add_eos_ && special_.eos == special_.sep)) ids.push_back(*special_.sep);
  return ids;
}

std::string_view Tokenizer::piece(TokenId id, bool special) const {
  check_id(id);
  const TokenKind k = table_.kind(id);
  const bool hidden = k == TokenKind::kUnknown || (k == TokenKind::kControl && !is_member(shown_control_, id));
  return hidden && !special ? std::string_view() : pieces_.piece(id);
}

bool Tokenizer::prefixes_space_after(std::optional<TokenId> previous) const {
  if (!previous) return add_space_prefix_ || word_pieces_;
  if (!add_space_prefix_) return false;
  const TokenKind k = kind(*previous);
  // A user-defined token with a space mark was merged from text, where no prefix follows.
  const bool found_in_text =
      k == TokenKind::kUserDefined && table_.text(*previous).find(kSpaceMark) == std::string_view::npos;
  return k == TokenKind::kControl || found_in_text;
}

void Tokenizer::append_piece(TokenId id, bool unparse_special, bool& drop_space, std::string& out) const {
  std::string_view bytes = piece(id, unparse_special);
  const bool hidden = bytes.empty();
  if (drop_space && !hidden && bytes[0] == ' ') bytes.remove_prefix(1);
  out += bytes;
  drop_space = word_pieces_ ? drop_space && hidden : prefixes_space_after(id);
}

std::string Tokenizer::detokenize(std::span<const TokenId> ids, bool remove_special, bool unparse_special) const {
  if (remove_special && add_bos_ && !ids.empty() && ids.front() == *special_.bos) ids = ids.subspan(1);
  const auto is_added_end = [&](TokenId id) {
    return (add_eos_ && id == *special_.eos) || (add_sep_ && id == *special_.sep);
  };
  if (remove_special && !ids.empty() && is_added_end(ids.back())) ids = ids.first(ids.size() - 1);
  std::string text;
  bool drop_space = prefixes_space_after(std::nullopt);
  for (const TokenId id : ids) append_piece(id, unparse_special, drop_space, text);
  return word_pieces_ ? clean_spaces(text) : text;
}

TokenKind Tokenizer::kind(TokenId id) const {
  check_id(id);
  return table_.kind(id);
}

float Tokenizer::score(TokenId id) const {
  check_id(id);
  return table_.score(id);
}

std::string_view Tokenizer::text(TokenId id) const {
  check_id(id);
  return table_.text(id);
}

bool Tokenizer::is_end_of_generation(TokenId id) const {
  return is_member(end_of_generation_, id);
}

uint64_t Tokenizer::memory_bytes() const {
  return sizeof(Tokenizer) + table_.memory_bytes() + pieces_.memory_bytes() + partition_.memory_bytes() +
         encoder_->memory_bytes();
}

void Tokenizer::check_id(TokenId id) const {
  if (table_.contains(id)) return;
  fail(ErrorCode::kInvalidArgument, "[tokenizer] token id {} is outside the vocabulary of {} tokens", id,
       table_.size());
}

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, std::optional<TokenId> previous,
                                           bool unparse_special)
    : tokenizer_(&tokenizer),
      unparse_special_(unparse_special),
      drop_space_(tokenizer.prefixes_space_after(previous)) {}

std::string StreamingDetokenizer::push(TokenId id) {
  std::string bytes;
  tokenizer_->append_piece(id, unparse_special_, drop_space_, bytes);
  return stream_.push(bytes);
}

}  // namespace mneme
