#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "weights/metadata.h"

namespace mneme {

/// Puts the tokenizer of a Hugging Face checkpoint into tokenizer.ggml.* keys, from the files in `folder`:
/// tokenizer.model (SentencePiece BPE), else tokenizer.json (byte-level BPE, SentencePiece-like BPE, WordPiece), with
/// added tokens, special tokens, chat templates (tokenizer_config.json, chat_template.jinja) and all ids that end a
/// generation (generation_config.json). The list of tokens is filled up to `n_vocab` with unused ones. A folder without
/// tokenizer files gives none.
///
/// SentencePiece-like BPE of tokenizer.json has merges instead of scores: a token's score becomes minus the rank of the
/// merge that makes it, which selects the same merges. Byte-level BPE needs its splitting rule known by name; another
/// one is Error(kUnsupported). `config` is config.json, for ids that only stand there.
void import_hf_tokenizer(const std::string& folder, const SortedJson& config, uint64_t n_vocab, Metadata& metadata);

/// GGUF name of the splitting rule of a byte-level BPE tokenizer.json, e.g. "llama-bpe". Throws Error(kUnsupported).
std::string pre_tokenizer_name(const SortedJson& tokenizer, const std::string& source);

}  // namespace mneme
