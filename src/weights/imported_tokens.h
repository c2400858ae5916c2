#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mneme {

/// Kinds of tokens; the values are those of GGUF files.
enum class TokenKind : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// A vocabulary being put together from several files: text, score and kind of each id. Gaps are unused tokens.
class ImportedTokens {
 public:
  /// `source` names the checkpoint in messages.
  explicit ImportedTokens(std::string source) : source_(std::move(source)) {}

  /// Sets or replaces a token; grows the table up to `id`. Throws Error(kCorruptData) for ids of 2^22 and more.
  void set(uint64_t id, std::string text, float score, TokenKind kind);
  /// Changes the kind of a token that is there.
  void set_kind(uint64_t id, TokenKind kind) { kinds_[id] = static_cast<int32_t>(kind); }
  /// Fills up to `n` tokens with unused ones.
  void fill_up(uint64_t n);

  size_t size() const { return texts_.size(); }
  /// Id of a text; the last one set where several have it.
  std::optional<uint32_t> find(std::string_view text) const;

  const std::vector<std::string>& texts() const { return texts_; }
  const std::vector<float>& scores() const { return scores_; }
  const std::vector<int32_t>& kinds() const { return kinds_; }

 private:
  std::string source_;
  std::vector<std::string> texts_;
  std::vector<float> scores_;
  std::vector<int32_t> kinds_;
  std::unordered_map<std::string, uint32_t> ids_;
};

}  // namespace mneme
