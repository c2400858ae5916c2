#include "recall/byte_scan.h"

#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"

namespace mneme::recall {
namespace {

constexpr uint64_t kBase = 0x9E3779B97F4A7C15;  // any odd number; arithmetic is modulo 2^64
constexpr size_t kBlock = size_t{1} << 20;

uint64_t hash_of(std::string_view piece) {
  uint64_t hash = 0;
  for (const char c : piece) hash = hash * kBase + static_cast<unsigned char>(c) + 1;
  return hash;
}

constexpr uint64_t power(uint64_t base, size_t exponent) {
  uint64_t result = 1;
  while (exponent-- > 0) result *= base;
  return result;
}

}  // namespace

bool ByteScan::add(std::string_view text) {
  if (text.size() < kShortest) return false;
  if (text.size() < 2 * kPiece - 1) {
    short_texts_.emplace_back(text);
    return true;
  }
  for (size_t at = 0; at + kPiece <= text.size(); at += kPiece) {
    const std::string_view piece = text.substr(at, kPiece);
    // Runs of one byte are what empty pages are made of.
    if (piece.find_first_not_of(piece.front()) != piece.npos) pieces_[hash_of(piece)].emplace(piece);
  }
  return true;
}

std::vector<ByteScan::Found> ByteScan::scan(const std::string& path) const {
  std::vector<Found> found;
  std::set<std::string> seen;
  if (!std::filesystem::exists(path)) return found;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail_errno("scan", path);
  constexpr uint64_t kOut = power(kBase, kPiece);
  std::string block;
  uint64_t offset = 0;  // of block in the file
  // A block begins with the end of the one before, so that nothing is lost between two.
  constexpr size_t kOverlap = 2 * kPiece - 2;
  for (;;) {
    const size_t kept = block.size();
    block.resize(kept + kBlock);
    const size_t n = std::fread(block.data() + kept, 1, kBlock, file.get());
    if (std::ferror(file.get()) != 0) fail_errno("scan", path);
    block.resize(kept + n);
    if (n == 0) break;
    for (const std::string& text : short_texts_) {
      if (seen.contains(text)) continue;
      const size_t at = block.find(text);
      if (at != block.npos && seen.insert(text).second) found.push_back({path, offset + at, text});
    }
    uint64_t hash = 0;
    for (size_t i = 0; !pieces_.empty() && i < block.size(); ++i) {
      hash = hash * kBase + static_cast<unsigned char>(block[i]) + 1;
      if (i >= kPiece) hash -= kOut * (static_cast<unsigned char>(block[i - kPiece]) + uint64_t{1});
      if (i + 1 < kPiece || i < kept) continue;
      const auto candidates = pieces_.find(hash);
      if (candidates == pieces_.end()) continue;
      const std::string piece = block.substr(i + 1 - kPiece, kPiece);
      if (!candidates->second.contains(piece) || !seen.insert(piece).second) continue;
      found.push_back({path, offset + i + 1 - kPiece, piece});
    }
    const size_t drop = block.size() - std::min(block.size(), kOverlap);
    offset += drop;
    block.erase(0, drop);
  }
  return found;
}

}  // namespace mneme::recall
