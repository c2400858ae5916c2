#include "engine/byte_matcher.h"

#include <cassert>

namespace mneme {

ByteMatcher::ByteMatcher(std::span<const std::string> patterns) : nodes_(1) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    assert(!patterns[i].empty());
    uint32_t node = kStart;
    for (const char c : patterns[i]) {
      const auto byte = static_cast<unsigned char>(c);
      uint32_t next = child(node, byte);
      if (next == kNone) {
        next = static_cast<uint32_t>(nodes_.size());
        nodes_[node].children.emplace_back(byte, next);
        nodes_.push_back({});
        nodes_.back().depth = nodes_[node].depth + 1;
      }
      node = next;
    }
    if (nodes_[node].pattern == kNone) nodes_[node].pattern = static_cast<uint32_t>(i);
  }
  // Breadth first, so that the fallback of every shorter prefix is known.
  std::vector<uint32_t> order = {kStart};
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t parent = order[i];
    for (const auto& [byte, node] : nodes_[parent].children) {
      Node& n = nodes_[node];
      if (parent != kStart) n.fallback = step(nodes_[parent].fallback, byte);
      if (n.pattern == kNone) n.pattern = nodes_[n.fallback].pattern;
      order.push_back(node);
    }
  }
}

ByteMatcher::State ByteMatcher::step(State state, unsigned char byte) const {
  for (;;) {
    const uint32_t next = child(state, byte);
    if (next != kNone) return next;
    if (state == kStart) return kStart;
    state = nodes_[state].fallback;
  }
}

uint32_t ByteMatcher::child(uint32_t node, unsigned char byte) const {
  for (const auto& [b, next] : nodes_[node].children) {
    if (b == byte) return next;
  }
  return kNone;
}

}  // namespace mneme
