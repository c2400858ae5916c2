#include "model/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/utf8.h"
#include "model/tokenizer/char_class.h"
#include "model/tokenizer/split_steps.h"

namespace mneme {
namespace {

/// The step that makes a piece of every match and of every gap between matches.
template <size_t (*Match)(const CodePoints&, size_t, size_t)>
void at_matches(const CodePoints& text, size_t begin, size_t end, std::vector<size_t>& ends) {
  size_t gap = begin;
  for (size_t i = begin; i < end;) {
    const size_t to = Match(text, i, end);
    if (to == i) {
      ++i;
      continue;
    }
    if (gap < i) ends.push_back(i);
    ends.push_back(to);
    gap = i = to;
  }
  if (gap < end) ends.push_back(end);
}

constexpr SplitStep kGpt2[] = {at_matches<match_gpt2>};
constexpr SplitStep kLlama3[] = {at_matches<match_llama3>};
constexpr SplitStep kQwen2[] = {at_matches<match_qwen2>};
constexpr SplitStep kQwen35[] = {at_matches<match_qwen35>};
constexpr SplitStep kTekken[] = {at_matches<match_tekken>};
constexpr SplitStep kGpt4o[] = {at_matches<match_gpt4o>};
constexpr SplitStep kLines[] = {at_matches<match_lines>};
constexpr SplitStep kStarcoder[] = {at_matches<match_number>, at_matches<match_gpt2>};
constexpr SplitStep kFalcon[] = {at_matches<match_falcon_punctuation>, at_matches<match_gpt2>,
                                 at_matches<match_three_digits>};
constexpr SplitStep kDeepseekLlm[] = {at_matches<match_line_break>,  at_matches<match_space_cased_letters>,
                                      at_matches<match_space_marks>, split_trailing_space,
                                      at_matches<match_east_asian>,  at_matches<match_numbers>};
constexpr SplitStep kDeepseekCoder[] = {at_matches<match_line_break>, at_matches<match_space_letters>,
                                        at_matches<match_space_punctuation>, at_matches<match_east_asian>,
                                        at_matches<match_number>};
constexpr SplitStep kDeepseek3[] = {at_matches<match_up_to_three_numbers>, at_matches<match_han_kana>,
                                    at_matches<match_deepseek3>};
constexpr SplitStep kBloom[] = {at_matches<match_bloom>};
constexpr SplitStep kViking[] = {at_matches<match_bloom>, at_matches<match_number>};
constexpr SplitStep kChameleon[] = {at_matches<match_sentinel>,        at_matches<match_image_code>,
                                    at_matches<match_indent>,          at_matches<match_number>,
                                    at_matches<match_one_punctuation>, at_matches<match_gpt2>};
constexpr SplitStep kDefault[] = {at_matches<match_default_punctuation>, at_matches<match_gpt2>,
                                  at_matches<match_numbers>, at_matches<match_three_digits>};

constexpr PreTokenizer kPreTokenizers[] = {
    {.names = "default", .steps = kDefault, .clean_spaces = true},
    {.names = "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat mpt olmo jais exaone4",
     .steps = kGpt2,
     .clean_spaces = true},
    {.names = "roberta-bpe jina-v1-en jina-v2-code", .steps = kGpt2, .clean_spaces = true, .add_sep = true},
    {.names = "trillion granite-docling", .steps = kGpt2},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .steps = kLlama3,
     .clean_spaces = true,
     .ignore_merges = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe", .steps = kLlama3, .clean_spaces = true},
    {.names = "chatglm-bpe glm4", .steps = kLlama3, .clean_spaces = true, .default_bos = false},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2", .steps = kQwen2},
    {.names = "stablelm2 megrez", .steps = kQwen2, .clean_spaces = true},
    {.names = "qwen35", .steps = kQwen35},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .steps = kGpt4o},
    {.names = "gemma4 sarvam-moe", .steps = kLines, .spaces_marked = true},
    {.names = "starcoder refact codeshell exaone minerva-7b", .steps = kStarcoder, .clean_spaces = true},
    {.names = "smollm command-r", .steps = kStarcoder},
    {.names = "falcon", .steps = kFalcon, .clean_spaces = true},
    {.names = "deepseek-llm", .steps = kDeepseekLlm},
    {.names = "deepseek-coder", .steps = kDeepseekCoder},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm", .steps = kDeepseek3},
    {.names = "tekken", .steps = kTekken, .ignore_merges = true, .add_bos = true},
    {.names = "poro-chat", .steps = kBloom},
    {.names = "bloom gpt3-finnish", .steps = kBloom, .clean_spaces = true},
    {.names = "viking", .steps = kViking},
    {.names = "chameleon", .steps = kChameleon, .add_bos = true},
};

bool has_word(std::string_view words, std::string_view word) {
  while (!words.empty()) {
    const size_t space = std::min(words.find(' '), words.size());
    if (words.substr(0, space) == word) return true;
    words.remove_prefix(std::min(space + 1, words.size()));
  }
  return false;
}

}  // namespace

CodePoints decode_code_points(std::string_view text) {
  CodePoints points;
  points.values.reserve(text.size());
  points.classes.reserve(text.size());
  points.byte_ends.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    i += c.length;
    points.values.push_back(c.code_point);
    points.classes.push_back(char_classes(c.code_point));
    points.byte_ends.push_back(static_cast<uint32_t>(i));
  }
  return points;
}

const PreTokenizer& find_pre_tokenizer(std::string_view name) {
  if (name.empty()) {
    log().warn(
        "the file does not name its pre-tokenizer (tokenizer.ggml.pre); using 'default', which may differ from the "
        "model's own");
    name = "default";
  }
  for (const PreTokenizer& candidate : kPreTokenizers) {
    if (has_word(candidate.names, name)) return candidate;
  }
  std::string known;
  for (const PreTokenizer& candidate : kPreTokenizers) known += fmt::format(" {}", candidate.names);
  const std::string quoted = Json(std::string(name)).dump(-1, ' ', true, Json::error_handler_t::replace);
  fail(ErrorCode::kUnsupported,
       "[tokenizer] expected a known pre-tokenizer, found {}, in tokenizer.ggml.pre; known are:{}", quoted, known);
}

std::vector<uint32_t> split_words(std::string_view text, const PreTokenizer& rules) {
  const CodePoints points = decode_code_points(text);
  std::vector<size_t> ends, next;
  if (!points.values.empty()) ends.push_back(points.values.size());
  for (const SplitStep step : rules.steps) {
    next.clear();
    size_t begin = 0;
    for (const size_t end : ends) {
      step(points, begin, end, next);
      begin = end;
    }
    ends.swap(next);
  }
  std::vector<uint32_t> byte_ends;
  byte_ends.reserve(ends.size());
  for (const size_t end : ends) byte_ends.push_back(points.byte_ends[end - 1]);
  return byte_ends;
}

}  // namespace mneme
