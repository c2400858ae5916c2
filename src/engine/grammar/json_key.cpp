#include "engine/grammar/json_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "engine/grammar/char_set.h"
#include "engine/grammar/gbnf.h"

namespace mneme {
namespace {

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxNodes = 16384;

/// The names as a tree of characters.
struct Tree {
  bool ends = false;  ///< a name ends here
  bool cut = false;   ///< a name goes on below, further than the tree
  std::map<uint32_t, Tree> next;
};

/// What may follow, up to the closing quote, once the beginning of a key has led to this place of the tree.
std::string rest(const Tree& tree) {
  static const CharSet kPlain = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0x7F, 0x7F}}).complement();
  std::vector<std::string> ways;
  if (!tree.ends) ways.emplace_back("\"\"");
  std::vector<CharRange> taken;
  for (const auto& [c, child] : tree.next) taken.push_back({c, c});
  ways.push_back(gbnf_class(kPlain.intersection(CharSet(taken).complement())) + " char*");
  for (const auto& [c, child] : tree.next) {
    if (!kPlain.contains(c) || child.cut) continue;
    std::string text;
    append_utf8(text, c);
    ways.push_back(fmt::format("{} {}", gbnf_literal(text), rest(child)));
  }
  return fmt::format("({})", fmt::join(ways, " | "));
}

}  // namespace

std::string other_key_gbnf(std::span<const std::string> names) {
  Tree root;
  const size_t depth = std::clamp<size_t>(kMaxNodes / std::max<size_t>(names.size(), 1), 1, kMaxDepth);
  for (const std::string& name : names) {
    Tree* place = &root;
    const std::vector<uint32_t> characters = utf8_to_code_points(name);
    for (size_t i = 0; i < std::min(depth, characters.size()); ++i) place = &place->next[characters[i]];
    (characters.size() > depth ? place->cut : place->ends) = true;
  }
  return fmt::format("\"\\\"\" {} \"\\\"\"", rest(root));
}

}  // namespace mneme
