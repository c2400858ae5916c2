#include "engine/grammar/byte_automata.h"

#include <algorithm>
#include <utility>

namespace mneme {
namespace {

bool intersects(const CharSet& characters, uint32_t first, uint32_t last) {
  const auto& ranges = characters.ranges();
  const auto found =
      std::lower_bound(ranges.begin(), ranges.end(), first, [](const CharRange& r, uint32_t c) { return r.last < c; });
  return found != ranges.end() && found->first <= last;
}

bool includes(const CharSet& characters, uint32_t first, uint32_t last) {
  const auto& ranges = characters.ranges();
  const auto found =
      std::lower_bound(ranges.begin(), ranges.end(), first, [](const CharRange& r, uint32_t c) { return r.last < c; });
  return found != ranges.end() && found->first <= first && found->last >= last;
}

}  // namespace

ByteAutomata::State ByteAutomata::add(const CharSet& characters) {
  if (const auto found = sets_.find(characters); found != sets_.end()) return found->second;
  std::vector<Edge> edges;
  const auto append = [&](uint32_t byte, State next) {
    const auto b = static_cast<uint8_t>(byte);
    if (!edges.empty() && edges.back().next == next && edges.back().last + 1u == byte) {
      edges.back().last = b;
    } else {
      edges.push_back({b, b, next});
    }
  };
  for (uint32_t byte = 0; byte < 0x80; ++byte) {
    if (characters.contains(byte)) append(byte, kComplete);
  }
  if (characters.ranges().back().last < 0x80) return sets_.emplace(characters, state_with(edges)).first->second;
  // Lead bytes: the payload of the lead byte is the top of the code point. Over-long forms are left out by the lower
  // bounds, surrogates because no set contains them.
  const auto lead = [&](uint32_t byte, uint32_t payload, int n_remaining, uint32_t smallest) {
    const uint32_t shift = 6 * static_cast<uint32_t>(n_remaining);
    const uint32_t base = payload << shift, last = base + (1u << shift) - 1;
    if (base >= smallest && includes(characters, base, last)) return append(byte, whole_tail(n_remaining));
    const CharSet part =
        characters.intersection(CharSet({{std::max(base, smallest), std::min(last, CharSet::kLargest)}}));
    if (!part.empty()) append(byte, tail(part, base, n_remaining));
  };
  for (uint32_t byte = 0xC2; byte < 0xE0; ++byte) lead(byte, byte & 0x1F, 1, 0x80);
  for (uint32_t byte = 0xE0; byte < 0xF0; ++byte) lead(byte, byte & 0x0F, 2, 0x800);
  for (uint32_t byte = 0xF0; byte < 0xF5; ++byte) lead(byte, byte & 0x07, 3, 0x10000);
  const State state = state_with(edges);
  sets_.emplace(characters, state);
  return state;
}

/// State before the last n_remaining bytes of the code points from `base` on that are in the set.
ByteAutomata::State ByteAutomata::tail(const CharSet& characters, uint32_t base, int n_remaining) {
  std::vector<Edge> edges;
  const uint32_t step = 1u << (6 * (n_remaining - 1));
  for (uint32_t value = 0; value < 64; ++value) {
    const uint32_t first = base + value * step, last = first + step - 1;
    if (!intersects(characters, first, last)) continue;
    const State next = includes(characters, first, last) ? whole_tail(n_remaining - 1)
                                                         : tail(characters, first, n_remaining - 1);
    const auto byte = static_cast<uint8_t>(0x80 + value);
    if (!edges.empty() && edges.back().next == next && edges.back().last + 1 == byte) {
      edges.back().last = byte;
    } else {
      edges.push_back({byte, byte, next});
    }
  }
  return state_with(edges);
}

/// State before the last n_remaining bytes when all that they can say is in the set.
ByteAutomata::State ByteAutomata::whole_tail(int n_remaining) {
  return n_remaining == 0 ? kComplete : state_with({{0x80, 0xBF, whole_tail(n_remaining - 1)}});
}

ByteAutomata::State ByteAutomata::state_with(const std::vector<Edge>& edges) {
  const auto [found, added] = states_.try_emplace(edges, static_cast<State>(n_states()));
  if (added) {
    edges_.insert(edges_.end(), edges.begin(), edges.end());
    first_edge_.push_back(edges_.size());
  }
  return found->second;
}

std::span<const ByteAutomata::Edge> ByteAutomata::edges(State state) const {
  return std::span(edges_).subspan(first_edge_[state], first_edge_[state + 1] - first_edge_[state]);
}

ByteAutomata::State ByteAutomata::step(State state, unsigned char byte) const {
  for (const Edge& e : edges(state)) {
    if (byte < e.first) return kRejected;
    if (byte <= e.last) return e.next;
  }
  return kRejected;
}

size_t ByteAutomata::n_bytes(State state) const {
  size_t n = 0;
  for (const Edge& e : edges(state)) n += static_cast<size_t>(e.last - e.first) + 1;
  return n;
}

size_t ByteAutomata::bytes() const {
  constexpr size_t kEntry = 64;  // links of a map, and what the allocator adds
  size_t n = edges_.capacity() * sizeof(Edge) + first_edge_.capacity() * sizeof(size_t);
  for (const auto& [set, state] : sets_) n += kEntry + sizeof set + set.ranges().size() * sizeof(CharRange);
  for (const auto& [edges, state] : states_) n += kEntry + sizeof edges + edges.size() * sizeof(Edge);
  return n;
}

size_t ByteAutomata::classify_bytes(std::array<uint8_t, 256>& class_of) const {
  std::array<bool, 257> border{};  // border[b]: an edge begins at b or ends at b - 1
  for (const Edge& e : edges_) border[e.first] = border[e.last + 1u] = true;
  std::vector<uint8_t> first_of;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte == 0 || border[byte]) first_of.push_back(static_cast<uint8_t>(byte));
    class_of[byte] = static_cast<uint8_t>(first_of.size() - 1);
  }
  return first_of.size();
}

}  // namespace mneme
