#include "model/tokenizer/prefix_tree.h"

#include <algorithm>

#include "base/error.h"

namespace mneme {

PrefixTree::PrefixTree(std::vector<Entry> entries) {
  if (entries.empty()) return;
  uint64_t bytes = 0;
  for (const Entry& e : entries) bytes += e.text.size();
  if (bytes >= uint64_t{1} << 31)
    fail(ErrorCode::kUnsupported, "[tokenizer] {} bytes of token text, at most 2^31", bytes);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.text < b.text; });

  /// Entries [begin, end) share their first `depth` bytes, which lead to the node of the same index as the range.
  struct Range {
    uint32_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, static_cast<uint32_t>(entries.size()), 0}};
  labels_.push_back(0);
  for (size_t node = 0; node < ranges.size(); ++node) {
    auto [i, end, depth] = ranges[node];
    int32_t value = kNoValue;
    if (entries[i].text.size() == depth) value = entries[i++].value;  // Sorted first among those that share the prefix.
    values_.push_back(value);
    first_child_.push_back(static_cast<Node>(ranges.size()));
    while (i < end) {
      const char byte = entries[i].text[depth];
      uint32_t last = i + 1;
      while (last < end && entries[last].text[depth] == byte) ++last;
      ranges.push_back({i, last, depth + 1});
      labels_.push_back(byte);
      i = last;
    }
  }
  first_child_.push_back(static_cast<Node>(ranges.size()));
  root_children_.assign(256, kNoNode);
  for (Node i = first_child_[0]; i < first_child_[1]; ++i) root_children_[static_cast<unsigned char>(labels_[i])] = i;
  labels_.shrink_to_fit();
  first_child_.shrink_to_fit();
  values_.shrink_to_fit();
}

size_t PrefixTree::memory_bytes() const {
  return labels_.capacity() + (first_child_.capacity() + root_children_.capacity()) * sizeof(Node) +
         values_.capacity() * sizeof(int32_t);
}

}  // namespace mneme
