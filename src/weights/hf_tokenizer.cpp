#include "weights/hf_tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <set>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/function_ref.h"
#include "base/log.h"
#include "weights/json_fields.h"
#include "weights/sentencepiece_model.h"
#include "weights/imported_tokens.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, a space in SentencePiece texts.

/// Splitting rules of published byte-level BPE tokenizers; "digits" stands for single digits and "words" for the rule
/// that GPT-2 brought.
struct SplitRule {
  std::string_view pattern, name;
};
constexpr std::array<SplitRule, 5> kSplitRules = {{
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "llama-bpe"},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "qwen2"},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "gpt-4o"},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "tekken"},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "gpt-2"},
}};

SortedJson read_json_if_there(const fs::path& path) {
  if (!fs::exists(path)) return SortedJson();
  return parse_sorted_json(read_text_file(path.string(), kMaxFileBytes), path.string());
}

const SortedJson& member(const SortedJson& json, const char* key) {
  static const SortedJson kNull;
  if (!json.is_object()) return kNull;
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

std::string text_member(const SortedJson& json, const char* key) {
  const SortedJson& value = member(json, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool flag_member(const SortedJson& json, const char* key, bool otherwise) {
  const SortedJson& value = member(json, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

/// The steps of a normaliser, pre-tokenizer or post-processor, which may be a sequence under `list`.
std::vector<const SortedJson*> steps_of(const SortedJson& stage, const char* list) {
  std::vector<const SortedJson*> steps;
  if (text_member(stage, "type") == "Sequence") {
    for (const SortedJson& step : member(stage, list)) steps.push_back(&step);
  } else if (stage.is_object()) {
    steps.push_back(&stage);
  }
  return steps;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  while (true) {
    const size_t at = text.find(from);
    out.append(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    out.append(to);
    text.remove_prefix(at + from.size());
  }
}

/// "<0x0A>".
bool is_byte_token(std::string_view text) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') && is_hex(text[3]) && is_hex(text[4]);
}

/// Text of a special token, given as a string or as an object with its content.
std::string special_text(const SortedJson& value) {
  return value.is_object()   ? text_member(value, "content")
         : value.is_string() ? value.get<std::string>()
                             : std::string();
}

class TokenizerImport {
 public:
  TokenizerImport(fs::path folder, const SortedJson& config, Metadata& metadata)
      : folder_(std::move(folder)),
        config_(config),
        tokenizer_path_((folder_ / "tokenizer.json").string()),
        tokenizer_(read_json_if_there(tokenizer_path_)),
        tokenizer_config_(read_json_if_there(folder_ / "tokenizer_config.json")),
        table_(folder_.string()),
        metadata_(metadata) {}

  void run(uint64_t n_vocab) {
    const fs::path spm = folder_ / "tokenizer.model";
    if (fs::exists(spm)) {
      sentencepiece(spm.string());
    } else if (tokenizer_.is_object()) {
      const std::string type = text_member(member(tokenizer_, "model"), "type");
      if (type == "BPE") {
        bpe();
      } else if (type == "WordPiece") {
        word_piece();
      } else {
        fail(ErrorCode::kUnsupported,
             "[import tokenizer] key 'model.type': expected BPE or WordPiece, found '{}', in {}", type,
             tokenizer_path_);
      }
    } else if (fs::exists(folder_ / "vocab.txt")) {
      word_list((folder_ / "vocab.txt").string());
    } else {
      log().warn("no tokenizer files in {}: the model has no vocabulary", folder_.string());
      return;
    }
    added_tokens();
    if (const auto unknown = table_.find(unknown_text_); spm_like_ && unknown)
      table_.set_kind(*unknown, TokenKind::kUnknown);
    table_.fill_up(n_vocab);
    write_table();
    special_ids();
    added_ends();
    chat_templates();
  }

 private:
  void sentencepiece(const std::string& path) {
    const std::string bytes = read_text_file(path, kMaxFileBytes);
    const SentencePieceModel model = parse_sentencepiece_model(bytes, path);
    spm_like_ = true;
    metadata_.set_string("tokenizer.ggml.model", model.is_unigram ? "t5" : "llama");
    metadata_.set_string("tokenizer.ggml.pre", "default");
    metadata_.set_bool("tokenizer.ggml.add_space_prefix", model.add_dummy_prefix);
    if (model.is_unigram) {
      metadata_.set_bool("tokenizer.ggml.remove_extra_whitespaces", model.remove_extra_whitespaces);
      metadata_.set_array_u8(
          "tokenizer.ggml.precompiled_charsmap",
          std::as_bytes(std::span(model.precompiled_charsmap.data(), model.precompiled_charsmap.size())));
    }
    for (size_t id = 0; id < model.pieces.size(); ++id) {
      const SentencePieceModel::Piece& piece = model.pieces[id];
      const auto kind = static_cast<TokenKind>(piece.kind);
      if (kind == TokenKind::kUnknown) unknown_text_ = piece.text;
      set_token(id, std::string(piece.text), piece.score, kind);
    }
  }

  /// User-defined tokens are matched in the raw text, where spaces are spaces.
  void set_token(uint64_t id, std::string text, float score, TokenKind kind) {
    if (kind == TokenKind::kUserDefined) text = replace_all(text, kSpaceMark, " ");
    table_.set(id, std::move(text), score, kind);
  }

  void for_vocabulary(FunctionRef<void(uint64_t, const std::string&)> take) {
    const SortedJson& vocabulary = member(member(tokenizer_, "model"), "vocab");
    if (!vocabulary.is_object() || vocabulary.empty()) {
      fail(ErrorCode::kCorruptData, "[import tokenizer] key 'model.vocab': expected tokens, found none, in {}",
           tokenizer_path_);
    }
    std::set<uint64_t> ids;
    for (const auto& [text, id] : vocabulary.items()) {
      if (!id.is_number_unsigned() || !ids.insert(id.get<uint64_t>()).second) {
        fail(ErrorCode::kCorruptData, "[import tokenizer] token '{}': expected an id of its own, found {}, in {}", text,
             id.dump(), tokenizer_path_);
      }
      take(id.get<uint64_t>(), text);
    }
  }

  /// Merges as "left right", rank by position.
  std::vector<std::string> merges() const {
    const SortedJson& list = member(member(tokenizer_, "model"), "merges");
    std::vector<std::string> out;
    for (const SortedJson& merge : list) {
      const bool is_pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
      if (!is_pair && !merge.is_string()) {
        fail(ErrorCode::kCorruptData, "[import tokenizer] merge {}: expected two texts, found {}, in {}", out.size(),
             merge.type_name(), tokenizer_path_);
      }
      std::string text = is_pair ? fmt::format("{} {}", merge[0].get<std::string>(), merge[1].get<std::string>())
                                 : merge.get<std::string>();
      const size_t space = text.find(' ', 1);
      if (text.size() < 3 || space == std::string::npos || space + 1 == text.size()) {
        fail(ErrorCode::kCorruptData, "[import tokenizer] merge {}: expected two texts, found '{}', in {}", out.size(),
             text, tokenizer_path_);
      }
      out.push_back(std::move(text));
    }
    return out;
  }

  void bpe() {
    const SortedJson& model = member(tokenizer_, "model");
    bool marks_spaces = false, prepends = false;
    for (const SortedJson* step : steps_of(member(tokenizer_, "normalizer"), "normalizers")) {
      marks_spaces |= text_member(*step, "content") == kSpaceMark;
      prepends |= text_member(*step, "type") == "Prepend";
    }
    for (const SortedJson* step : steps_of(member(tokenizer_, "pre_tokenizer"), "pretokenizers")) {
      if (text_member(*step, "type") != "Metaspace") continue;
      marks_spaces = true;
      const std::string scheme = text_member(*step, "prepend_scheme");
      prepends |= scheme.empty() ? flag_member(*step, "add_prefix_space", true) : scheme != "never";
    }
    if (marks_spaces || flag_member(model, "byte_fallback", false)) {
      spm_like_bpe(prepends);
    } else {
      metadata_.set_string("tokenizer.ggml.model", "gpt2");
      metadata_.set_string("tokenizer.ggml.pre", pre_tokenizer_name(tokenizer_, tokenizer_path_));
      for_vocabulary([&](uint64_t id, const std::string& text) { table_.set(id, text, 0.0f, TokenKind::kNormal); });
      metadata_.set_array_string("tokenizer.ggml.merges", merges());
    }
  }

  void spm_like_bpe(bool prepends) {
    spm_like_ = true;
    metadata_.set_string("tokenizer.ggml.model", "llama");
    metadata_.set_string("tokenizer.ggml.pre", "default");
    metadata_.set_bool("tokenizer.ggml.add_space_prefix", prepends);
    unknown_text_ = text_member(member(tokenizer_, "model"), "unk_token");
    std::unordered_map<std::string, float> scores;
    float rank = 0.0f;
    for (const std::string& merge : merges()) {
      // SentencePiece texts have no spaces, so the first one after the start parts the two.
      const size_t space = merge.find(' ', 1);
      scores.emplace(merge.substr(0, space) + merge.substr(space + 1), -rank);
      rank += 1.0f;
    }
    for_vocabulary([&](uint64_t id, const std::string& text) {
      const auto score = scores.find(text);
      const TokenKind kind = is_byte_token(text) ? TokenKind::kByte : TokenKind::kNormal;
      // What no merge makes must never win against what one makes.
      const float least = kind == TokenKind::kByte ? 0.0f : -1e9f;
      table_.set(id, text, score == scores.end() ? least : score->second, kind);
    });
  }

  /// GGUF marks the pieces that begin a word instead of those that go on.
  void set_word_piece(uint64_t id, const std::string& text) {
    if (text.starts_with("##")) {
      table_.set(id, text.substr(2), 0.0f, TokenKind::kNormal);
    } else if (text.starts_with('[') && text.ends_with(']')) {
      table_.set(id, text, 0.0f, text.starts_with("[unused") ? TokenKind::kNormal : TokenKind::kControl);
    } else {
      table_.set(id, fmt::format("{}{}", kSpaceMark, text), 0.0f, TokenKind::kNormal);
    }
  }

  void word_piece_model() {
    metadata_.set_string("tokenizer.ggml.model", "bert");
    metadata_.set_string("tokenizer.ggml.pre", "default");
  }

  void word_piece() {
    word_piece_model();
    for (const SortedJson* step : steps_of(member(tokenizer_, "normalizer"), "normalizers")) {
      if (text_member(*step, "type") == "BertNormalizer" && !flag_member(*step, "lowercase", true)) {
        log().warn("{} keeps upper case, but mneme's WordPiece lowers it: results will differ", tokenizer_path_);
      }
    }
    for_vocabulary([&](uint64_t id, const std::string& text) { set_word_piece(id, text); });
  }

  /// vocab.txt: one piece a line, the line number is the id.
  void word_list(const std::string& path) {
    word_piece_model();
    const std::string content = read_text_file(path, kMaxFileBytes);
    std::string_view rest = content;
    for (uint64_t id = 0; !rest.empty(); ++id) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      if (line.ends_with('\r')) line.remove_suffix(1);
      set_word_piece(id, std::string(line));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }

  void add_token(uint64_t id, const std::string& text, bool special) {
    if (text.empty()) return;
    set_token(id, text, -1000.0f, special ? TokenKind::kControl : TokenKind::kUserDefined);
  }

  /// Added tokens stand in up to three files.
  void added_tokens() {
    const SortedJson simple = read_json_if_there(folder_ / "added_tokens.json");
    if (simple.is_object()) {
      for (const auto& [text, id] : simple.items()) {
        if (id.is_number_unsigned()) add_token(id.get<uint64_t>(), text, false);
      }
    }
    for (const SortedJson& token : member(tokenizer_, "added_tokens")) {
      const SortedJson& id = member(token, "id");
      if (id.is_number_unsigned())
        add_token(id.get<uint64_t>(), text_member(token, "content"), flag_member(token, "special", false));
    }
    const SortedJson& decoder = member(tokenizer_config_, "added_tokens_decoder");
    if (!decoder.is_object()) return;
    for (const auto& [number, token] : decoder.items()) {
      uint64_t id = 0;
      const auto [end, status] = std::from_chars(number.data(), number.data() + number.size(), id);
      if (status != std::errc{} || end != number.data() + number.size()) {
        fail(ErrorCode::kCorruptData, "[import tokenizer] key 'added_tokens_decoder': expected ids, found '{}', in {}",
             number, (folder_ / "tokenizer_config.json").string());
      }
      add_token(id, text_member(token, "content"), flag_member(token, "special", false));
    }
  }

  void write_table() {
    metadata_.set_array_string("tokenizer.ggml.tokens", table_.texts());
    if (spm_like_) metadata_.set_array_f32("tokenizer.ggml.scores", table_.scores());
    metadata_.set_array_i32("tokenizer.ggml.token_type", table_.kinds());
  }

  /// Id of a special token: by its text in the tokenizer's settings, else by number in config.json.
  std::optional<uint32_t> special_id(const std::string& role) const {
    const std::string text = special_text(member(tokenizer_config_, fmt::format("{}_token", role).c_str()));
    if (!text.empty()) {
      if (const auto id = table_.find(text)) return id;
      if (const auto id = table_.find(fmt::format("{}{}", kSpaceMark, text))) return id;
    }
    const SortedJson* id = &member(config_, fmt::format("{}_token_id", role).c_str());
    if (id->is_array() && !id->empty()) id = &id->front();
    if (id->is_number_unsigned() && id->get<uint64_t>() < table_.size()) return id->get<uint32_t>();
    return std::nullopt;
  }

  void special_ids() {
    const std::array<std::pair<const char*, const char*>, 7> roles = {{{"bos", "bos"},
                                                                       {"eos", "eos"},
                                                                       {"unk", "unknown"},
                                                                       {"sep", "seperator"},
                                                                       {"pad", "padding"},
                                                                       {"cls", "cls"},
                                                                       {"mask", "mask"}}};
    for (const auto& [role, key] : roles) {
      if (const auto id = special_id(role)) metadata_.set_u32(fmt::format("tokenizer.ggml.{}_token_id", key), *id);
    }
    // Every further id that ends a generation is an end of turn, or of a message where its text says so.
    const SortedJson generation = read_json_if_there(folder_ / "generation_config.json");
    auto eos = metadata_.find_u64("tokenizer.ggml.eos_token_id");
    for (const SortedJson* list : {&member(generation, "eos_token_id"), &member(config_, "eos_token_id")}) {
      for (const SortedJson& value : list->is_array() ? *list : SortedJson::array({*list})) {
        if (!value.is_number_unsigned() || value.get<uint64_t>() >= table_.size()) continue;
        const auto id = value.get<uint32_t>();
        if (!eos) {
          eos = id;
          metadata_.set_u32("tokenizer.ggml.eos_token_id", id);
        } else if (id != *eos) {
          add_end(id);
        }
      }
    }
  }

  void add_end(uint32_t id) {
    const char* const eot = "tokenizer.ggml.eot_token_id";
    const char* const eom = "tokenizer.ggml.eom_token_id";
    const bool known = metadata_.find_u64(eot) == id || metadata_.find_u64(eom) == id;
    if (known) return;
    const bool is_message_end = table_.texts()[id] == "<|eom_id|>";
    if (!is_message_end && !metadata_.has(eot)) {
      metadata_.set_u32(eot, id);
    } else if (!metadata_.has(eom)) {
      metadata_.set_u32(eom, id);
    } else {
      log().warn("token {} also ends a generation, but GGUF has room for three such tokens", id);
    }
  }

  /// Whether encoding adds BOS and EOS: told by a setting, else by the template that the post-processor applies.
  void added_ends() {
    bool bos = false, eos = false, known = false;
    for (const SortedJson* step : steps_of(member(tokenizer_, "post_processor"), "processors")) {
      if (text_member(*step, "type") != "TemplateProcessing") continue;
      known = true;
      bool before = true;
      for (const SortedJson& part : member(*step, "single")) {
        if (part.contains("Sequence")) before = false;
        if (part.contains("SpecialToken")) (before ? bos : eos) = true;
      }
    }
    const std::string model(metadata_.get_string("tokenizer.ggml.model"));
    if (model == "bert") return;  // Always adds both.
    known |= model == "gpt2";
    for (const auto& [key, value] : {std::pair{"add_bos_token", bos}, std::pair{"add_eos_token", eos}}) {
      const SortedJson& setting = member(tokenizer_config_, key);
      if (setting.is_boolean() || known) {
        metadata_.set_bool(fmt::format("tokenizer.ggml.{}", key), setting.is_boolean() ? setting.get<bool>() : value);
      }
    }
  }

  void chat_templates() {
    const SortedJson& setting = member(tokenizer_config_, "chat_template");
    if (setting.is_string()) metadata_.set_string("tokenizer.chat_template", setting.get<std::string>());
    if (setting.is_array()) {
      for (const SortedJson& entry : setting) {
        const std::string name = text_member(entry, "name");
        const std::string key =
            name == "default" ? "tokenizer.chat_template" : fmt::format("tokenizer.chat_template.{}", name);
        if (!name.empty()) metadata_.set_string(key, text_member(entry, "template"));
      }
    }
    const fs::path file = folder_ / "chat_template.jinja";
    if (fs::exists(file)) metadata_.set_string("tokenizer.chat_template", read_text_file(file.string(), kMaxFileBytes));
  }

  fs::path folder_;
  const SortedJson& config_;
  std::string tokenizer_path_;
  SortedJson tokenizer_, tokenizer_config_;
  ImportedTokens table_;
  Metadata& metadata_;
  bool spm_like_ = false;
  std::string unknown_text_;
};

}  // namespace

std::string pre_tokenizer_name(const SortedJson& tokenizer, const std::string& source) {
  bool single_digits = false;
  std::string name, unknown;
  for (const SortedJson* step : steps_of(member(tokenizer, "pre_tokenizer"), "pretokenizers")) {
    const std::string type = text_member(*step, "type");
    if (type == "Digits") {
      single_digits = flag_member(*step, "individual_digits", false);
    } else if (type == "ByteLevel") {
      if (flag_member(*step, "use_regex", true) && name.empty()) name = "gpt-2";
    } else if (type == "Split") {
      const std::string pattern = text_member(member(*step, "pattern"), "Regex");
      const auto rule = std::find_if(kSplitRules.begin(), kSplitRules.end(),
                                     [&](const SplitRule& known) { return known.pattern == pattern; });
      if (rule == kSplitRules.end() || !name.empty()) {
        unknown = pattern;
      } else {
        name = rule->name;
      }
    } else {
      unknown = type;
    }
  }
  if (single_digits && name == "gpt-2") {
    name = "smollm";
  } else if (single_digits) {
    unknown = "Digits";
  }
  if (name.empty() || !unknown.empty()) {
    fail(ErrorCode::kUnsupported, "[import tokenizer] expected a known splitting rule, found '{}', in {}",
         SortedJson(unknown).dump(-1, ' ', true, SortedJson::error_handler_t::replace), source);
  }
  // Two families share one rule; only the newer emits whole words that are tokens without merging.
  const bool ignores_merges = flag_member(member(tokenizer, "model"), "ignore_merges", false);
  return name == "llama-bpe" && !ignores_merges ? "dbrx" : name;
}

void import_hf_tokenizer(const std::string& folder, const SortedJson& config, uint64_t n_vocab, Metadata& metadata) {
  TokenizerImport(folder, config, metadata).run(n_vocab);
}

}  // namespace mneme
