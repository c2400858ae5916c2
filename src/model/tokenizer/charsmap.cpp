#include "model/tokenizer/charsmap.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"

namespace mneme {
namespace {

constexpr std::string_view kKey = "tokenizer.ggml.precompiled_charsmap";
/// Compatibility forms grow a character 11-fold at most; a blob that does much more is not a normaliser.
constexpr size_t kMostGrowth = 64;

static_assert(std::endian::native == std::endian::little);

}  // namespace

Charsmap::Charsmap(std::string_view blob) {
  if (blob.empty()) return;
  uint32_t array_bytes = 0;
  if (blob.size() >= sizeof(array_bytes)) std::memcpy(&array_bytes, blob.data(), sizeof(array_bytes));
  if (blob.size() < sizeof(array_bytes) || array_bytes % sizeof(uint32_t) != 0 || array_bytes == 0 ||
      array_bytes >= blob.size() - sizeof(array_bytes)) {
    fail(ErrorCode::kCorruptData,
         "[tokenizer] expected an array and replacements within {} bytes, found an array of {}, in {}", blob.size(),
         array_bytes, kKey);
  }
  blob.remove_prefix(sizeof(array_bytes));
  entries_.resize(array_bytes / sizeof(uint32_t));
  std::memcpy(entries_.data(), blob.data(), array_bytes);
  replacements_ = blob.substr(array_bytes);
  if (replacements_.back() != '\0') {
    fail(ErrorCode::kCorruptData, "[tokenizer] expected replacements that end in NUL, in {}", kKey);
  }
}

uint32_t Charsmap::entry(size_t index) const {
  if (index >= entries_.size()) {
    fail(ErrorCode::kCorruptData, "[tokenizer] entry {} of {} does not exist, in {}", index, entries_.size(), kKey);
  }
  return entries_[index];
}

Charsmap::Match Charsmap::longest_match(std::string_view text) const {
  const auto base = [](uint32_t e) -> size_t { return size_t{e >> 10} << ((e & 512) >> 6); };
  Match match{0, {}};
  size_t node = base(entry(0));
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) break;
    node ^= byte;
    const uint32_t here = entry(node);
    if ((here & 0x800000FF) != byte) break;
    node ^= base(here);
    if ((here >> 8 & 1) == 0) continue;
    const uint32_t offset = entry(node) & 0x7FFFFFFF;
    if (offset >= replacements_.size()) {
      fail(ErrorCode::kCorruptData, "[tokenizer] replacement at {} lies outside {} bytes, in {}", offset,
           replacements_.size(), kKey);
    }
    match = {i + 1, std::string_view(replacements_.data() + offset)};
  }
  return match;
}

void Charsmap::normalize(std::string_view text, std::string& out) const {
  const size_t most = out.size() + 64 + kMostGrowth * text.size();
  while (!text.empty()) {
    if (const Match match = entries_.empty() ? Match{0, {}} : longest_match(text); match.length > 0) {
      out += match.replacement;
      text.remove_prefix(match.length);
      if (out.size() > most)
        fail(ErrorCode::kCorruptData, "[tokenizer] replacements of more than {} bytes, in {}", most, kKey);
      continue;
    }
    const Utf8Char c = decode_utf8(text);
    append_utf8(out, c.code_point);
    text.remove_prefix(c.length);
  }
}

}  // namespace mneme
