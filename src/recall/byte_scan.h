#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mneme::recall {

/// Finds what is left of given texts in files, also in parts: any run of kPiece * 2 - 1 or more bytes of a longer text is
/// found wherever it lies, a shorter text as a whole (texts below kShortest bytes are not looked for: they are
/// everywhere). Blocks of kPiece bytes of the texts are hashed, and the file's bytes go through a rolling hash (Karp and
/// Rabin, 1987).
class ByteScan {
 public:
  static constexpr size_t kPiece = 16;
  static constexpr size_t kShortest = 6;

  /// False when the text is too short to be looked for.
  bool add(std::string_view text);
  bool empty() const { return short_texts_.empty() && pieces_.empty(); }

  struct Found {
    std::string file;
    uint64_t offset;
    std::string bytes;  ///< The piece.
  };
  /// What a file holds, each piece once, where it is first; a missing file holds nothing. Throws Error(kIo).
  std::vector<Found> scan(const std::string& path) const;

 private:
  std::vector<std::string> short_texts_;
  std::unordered_map<uint64_t, std::set<std::string>> pieces_;  ///< By hash.
};

}  // namespace mneme::recall
