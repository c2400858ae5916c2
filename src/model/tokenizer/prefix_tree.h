#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace mneme {

/// Byte-wise tree over a set of strings, for finding all of them that start at a place in a text.
///
/// Nodes are numbered breadth first, so that the children of a node are neighbours and sorted by byte: a node costs
/// nine bytes. Immutable after construction.
class PrefixTree {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNoNode = ~Node{0};
  static constexpr int32_t kNoValue = -1;

  struct Entry {
    std::string_view text;  ///< Not empty, without duplicates.
    int32_t value;          ///< Not negative.
  };

  PrefixTree() = default;
  /// Throws Error(kUnsupported) above 2^31 bytes of text.
  explicit PrefixTree(std::vector<Entry> entries);

  bool empty() const { return labels_.empty(); }

  /// The child of `node` along `byte`, or kNoNode.
  Node child(Node node, char byte) const {
    if (node == kRoot) return root_children_.empty() ? kNoNode : root_children_[static_cast<unsigned char>(byte)];
    const Node begin = first_child_[node], end = first_child_[node + 1];
    if (begin == end) return kNoNode;
    const void* found = std::memchr(&labels_[begin], byte, end - begin);
    return found == nullptr ? kNoNode : static_cast<Node>(static_cast<const char*>(found) - labels_.data());
  }

  /// Value of the string that ends at `node`, or kNoValue.
  int32_t value(Node node) const { return values_[node]; }

  /// Calls visit(length, value) for every string that `text` starts with, shortest first.
  template <typename Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    Node node = kRoot;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, text[i]);
      if (node == kNoNode) return;
      if (values_[node] != kNoValue) visit(i + 1, values_[node]);
    }
  }

  size_t memory_bytes() const;

 private:
  std::vector<char> labels_;         ///< [n] byte that leads to a node; unused for the root.
  std::vector<Node> first_child_;    ///< [n + 1] children of node i: first_child_[i] .. first_child_[i + 1].
  std::vector<int32_t> values_;      ///< [n]
  std::vector<Node> root_children_;  ///< [256], since the root has the most.
};

}  // namespace mneme
