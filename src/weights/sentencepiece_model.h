#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// What mneme needs of a SentencePiece model file (tokenizer.model), a protocol buffer. The library's interface does
/// not give the kinds of pieces and the normaliser's settings, so the few fields are read here.
struct SentencePieceModel {
  struct Piece {
    std::string_view text;  ///< Points into the file's bytes.
    float score = 0.0f;
    uint32_t kind = 1;  ///< 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte: as in GGUF files.
  };
  std::vector<Piece> pieces;
  bool is_unigram = true;  ///< Else BPE.
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  std::string_view precompiled_charsmap;
};

/// Parses the bytes of a model file. Throws Error(kCorruptData) naming `source`.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source);

}  // namespace mneme
