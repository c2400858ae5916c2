#include "weights/imported_tokens.h"

#include <utility>

#include "base/error.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxTokens = uint64_t{1} << 22;

}  // namespace

void ImportedTokens::fill_up(uint64_t n) {
  if (n > kMaxTokens) {
    fail(ErrorCode::kCorruptData, "[import tokenizer] expected at most {} tokens, found {}, in {}", kMaxTokens, n,
         source_);
  }
  while (texts_.size() < n) {
    texts_.push_back(fmt::format("[PAD{}]", texts_.size()));
    scores_.push_back(-1000.0f);
    kinds_.push_back(static_cast<int32_t>(TokenKind::kUnused));
  }
}

void ImportedTokens::set(uint64_t id, std::string text, float score, TokenKind kind) {
  if (id >= kMaxTokens) {
    fail(ErrorCode::kCorruptData, "[import tokenizer] expected ids below {}, found {}, in {}", kMaxTokens, id, source_);
  }
  if (id >= texts_.size()) fill_up(id + 1);
  ids_[text] = static_cast<uint32_t>(id);
  texts_[id] = std::move(text);
  scores_[id] = score;
  kinds_[id] = static_cast<int32_t>(kind);
}

std::optional<uint32_t> ImportedTokens::find(std::string_view text) const {
  const auto found = ids_.find(std::string(text));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace mneme
