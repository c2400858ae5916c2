#include "model/tokenizer/special_tokens.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace mneme {
namespace {

using Texts = std::initializer_list<std::string_view>;

/// The first of `texts` that is a token, made a control token, if the role is not given.
void detect(TokenTable& table, Texts texts, std::optional<TokenId>& role) {
  if (role) return;
  for (const std::string_view text : texts) {
    role = table.find(text);
    if (!role) continue;
    table.set_kind(*role, TokenKind::kControl);
    return;
  }
}

constexpr std::string_view kEndOfGeneration[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
};

}  // namespace

SpecialTokens detect_special_tokens(TokenTable& table, SpecialTokens s) {
  detect(table,
         {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
          "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"},
         s.eot);
  detect(table, {"<|eom_id|>"}, s.eom);
  detect(table, {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"}, s.fim_prefix);
  detect(table, {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"}, s.fim_suffix);
  detect(table, {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"}, s.fim_middle);
  detect(table, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"}, s.fim_pad);
  detect(table, {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}, s.fim_repo);
  detect(table, {"<|file_sep|>"}, s.fim_file);
  return s;
}

EndOfGeneration detect_end_of_generation(TokenTable& table, const SpecialTokens& special) {
  EndOfGeneration result;
  std::vector<TokenId>& ids = result.tokens;
  for (const auto& role :
       {special.eos, special.eot, special.eom, special.fim_pad, special.fim_repo, special.fim_file}) {
    if (role) ids.push_back(*role);
  }
  for (const std::string_view text : kEndOfGeneration) {
    const auto id = table.find(text);
    if (!id) continue;
    table.set_kind(*id, TokenKind::kControl);
    ids.push_back(*id);
  }
  if (table.find("<|return|>") && table.find("<|call|>")) {
    for (const std::string_view text : {"<|end|>", "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}) {
      const auto id = table.find(text);
      if (!id) continue;
      table.set_kind(*id, TokenKind::kControl);
      result.shown.push_back(*id);
      std::erase(ids, *id);
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return result;
}

}  // namespace mneme
