#include "model/tokenizer/vocabulary.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "weights/metadata.h"

namespace mneme {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";

std::vector<std::string> find_strings(const Metadata& metadata, std::string_view key) {
  const auto strings = metadata.find_array_string(key);
  if (!strings) return {};
  return {strings->begin(), strings->end()};
}

void check_count(std::string_view key, size_t found, size_t n_tokens) {
  if (found == n_tokens) return;
  fail(ErrorCode::kCorruptData, "[tokenizer] expected {} values, one a token, found {}, in {}", n_tokens, found, key);
}

std::vector<TokenKind> find_kinds(const Metadata& metadata, size_t n_tokens) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  const auto values = metadata.find_array_i32(kKey);
  if (!values) return {};
  check_count(kKey, values->size(), n_tokens);
  std::vector<TokenKind> kinds;
  kinds.reserve(n_tokens);
  for (const int32_t value : *values) {
    if (value < 0 || value > 6) {
      fail(ErrorCode::kCorruptData, "[tokenizer] expected a type from 0 to 6, found {} for token {}, in {}", value,
           kinds.size(), kKey);
    }
    kinds.push_back(value == 0 ? TokenKind::kNormal : static_cast<TokenKind>(value));
  }
  return kinds;
}

/// Ids outside the vocabulary occur in real files and are ignored.
void read_id(const Metadata& metadata, std::string_view name, size_t n_tokens, std::optional<TokenId>& id) {
  const std::string key = fmt::format("tokenizer.ggml.{}_id", name);
  const auto value = metadata.find_i64(key);
  if (!value || *value == -1) return;
  if (*value < 0 || static_cast<uint64_t>(*value) >= n_tokens) {
    log().warn("{} = {} is outside the vocabulary of {} tokens and is ignored", key, *value, n_tokens);
    return;
  }
  id = static_cast<TokenId>(*value);
}

SpecialTokens read_special(const Metadata& metadata, size_t n_tokens) {
  SpecialTokens s;
  // The older name of a role comes first, so that the newer one wins. "seperator" is how files spell it.
  const std::array<std::pair<std::string_view, std::optional<TokenId>*>, 18> roles = {{
      {"bos_token", &s.bos},
      {"eos_token", &s.eos},
      {"eot_token", &s.eot},
      {"eom_token", &s.eom},
      {"unknown_token", &s.unk},
      {"seperator_token", &s.sep},
      {"padding_token", &s.pad},
      {"cls_token", &s.cls},
      {"mask_token", &s.mask},
      {"prefix_token", &s.fim_prefix},
      {"suffix_token", &s.fim_suffix},
      {"middle_token", &s.fim_middle},
      {"fim_pre_token", &s.fim_prefix},
      {"fim_suf_token", &s.fim_suffix},
      {"fim_mid_token", &s.fim_middle},
      {"fim_pad_token", &s.fim_pad},
      {"fim_rep_token", &s.fim_repo},
      {"fim_sep_token", &s.fim_file},
  }};
  for (const auto& [name, id] : roles) read_id(metadata, name, n_tokens, *id);
  return s;
}

}  // namespace

Vocabulary read_vocabulary(const Metadata& metadata) {
  Vocabulary v;
  v.model = metadata.get_string("tokenizer.ggml.model");
  if (v.model == "none" || v.model == "no_vocab") {
    fail(ErrorCode::kUnsupported, "[tokenizer] expected a vocabulary, found tokenizer.ggml.model = '{}', in {}",
         v.model, metadata.source());
  }
  v.pre = metadata.find_string("tokenizer.ggml.pre").value_or("");
  v.name = metadata.find_string("general.name").value_or("");
  v.tokens = find_strings(metadata, kTokensKey);
  if (v.tokens.empty()) {
    fail(ErrorCode::kNotFound, "[tokenizer] expected a list of tokens, found none, in {} of {}", kTokensKey,
         metadata.source());
  }
  const size_t n_tokens = v.tokens.size();
  constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
  if (auto scores = metadata.find_array_f32(kScoresKey)) {
    check_count(kScoresKey, scores->size(), n_tokens);
    v.scores = std::move(*scores);
  }
  v.kinds = find_kinds(metadata, n_tokens);
  v.merges = find_strings(metadata, "tokenizer.ggml.merges");
  if (const auto blob = metadata.find_array_bytes("tokenizer.ggml.precompiled_charsmap")) {
    v.charsmap.assign(reinterpret_cast<const char*>(blob->data()), blob->size());
  }
  v.special = read_special(metadata, n_tokens);
  v.add_bos = metadata.find_bool("tokenizer.ggml.add_bos_token");
  v.add_eos = metadata.find_bool("tokenizer.ggml.add_eos_token");
  v.add_sep = metadata.find_bool("tokenizer.ggml.add_sep_token");
  v.add_space_prefix = metadata.find_bool("tokenizer.ggml.add_space_prefix");
  v.remove_extra_whitespaces = metadata.find_bool("tokenizer.ggml.remove_extra_whitespaces");
  v.lowercase = metadata.find_bool("tokenizer.ggml.normalizer.lowercase");
  v.strip_accents = metadata.find_bool("tokenizer.ggml.normalizer.strip_accents");
  return v;
}

}  // namespace mneme
