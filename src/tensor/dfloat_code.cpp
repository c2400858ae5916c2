#include <algorithm>
#include <cstring>
#include <queue>
#include <vector>

#include "tensor/dfloat.h"

namespace mneme::dfloat {
namespace {

/// Depths of the leaves of a Huffman tree.
std::array<uint8_t, 256> huffman_depths(const std::array<uint64_t, 256>& counts) {
  struct Node {
    uint64_t count;
    int index;  ///< Of the node; ties go by it, so that the tree does not depend on the queue.
    bool operator>(const Node& other) const { return count != other.count ? count > other.count : index > other.index; }
  };
  std::array<int, 512> parent{};
  std::priority_queue<Node, std::vector<Node>, std::greater<>> queue;
  for (int s = 0; s < 256; ++s) {
    if (counts[static_cast<size_t>(s)] > 0) queue.push({counts[static_cast<size_t>(s)], s});
  }
  int next = 256;
  while (queue.size() > 1) {
    const Node a = queue.top();
    queue.pop();
    const Node b = queue.top();
    queue.pop();
    parent[static_cast<size_t>(a.index)] = parent[static_cast<size_t>(b.index)] = next;
    queue.push({a.count + b.count, next++});
  }
  const int root = next - 1;
  std::array<uint8_t, 256> depth{};
  for (size_t s = 0; s < 256; ++s) {
    if (counts[s] == 0) continue;
    for (int node = static_cast<int>(s); root >= 256 && node != root; node = parent[static_cast<size_t>(node)])
      ++depth[s];
    depth[s] = std::max<uint8_t>(depth[s], 1);
  }
  return depth;
}

}  // namespace

std::array<uint8_t, 256> code_lengths(const std::array<uint64_t, 256>& counts) {
  std::array<uint64_t, 256> flat = counts;
  for (;;) {
    const auto lengths = huffman_depths(flat);
    if (*std::max_element(lengths.begin(), lengths.end()) <= kMaxCodeBits) return lengths;
    // Rare symbols come closer to the others; 256 equal counts would need 8 bits, so this ends.
    for (uint64_t& count : flat) count = (count + 1) / 2;
  }
}

bool is_complete(const std::array<uint8_t, 256>& lengths) {
  uint64_t sum = 0, symbols = 0;
  for (uint8_t length : lengths) {
    if (length > kMaxCodeBits) return false;
    if (length > 0) sum += kTableSize >> length;
    symbols += length > 0;
  }
  return sum == kTableSize || (symbols == 1 && sum == kTableSize / 2);
}

std::array<uint16_t, 256> canonical_codes(const std::array<uint8_t, 256>& lengths) {
  std::array<uint16_t, 256> codes{};
  uint16_t code = 0;
  for (unsigned bits = 1; bits <= kMaxCodeBits; ++bits) {
    for (size_t s = 0; s < 256; ++s) {
      if (lengths[s] == bits) codes[s] = code++;
    }
    code = static_cast<uint16_t>(code << 1);
  }
  return codes;
}

void fill_table(const std::array<uint8_t, 256>& lengths, DecodeTable& table) {
  struct First {
    uint8_t symbol, bits;
  };
  std::array<First, kTableSize> first{};
  const auto codes = canonical_codes(lengths);
  for (size_t s = 0; s < 256; ++s) {
    if (lengths[s] == 0) continue;
    const unsigned free_bits = kMaxCodeBits - lengths[s];
    const size_t begin = size_t{codes[s]} << free_bits;
    for (size_t i = begin; i < std::min(begin + (size_t{1} << free_bits), kTableSize); ++i) {
      first[i] = {static_cast<uint8_t>(s), lengths[s]};
    }
  }
  // The code of one symbol alone leaves half of the windows open: they mean that symbol too.
  for (size_t i = kTableSize / 2; i < kTableSize; ++i) {
    if (first[i].bits == 0) first[i] = first[0];
  }
  for (size_t window = 0; window < kTableSize; ++window) {
    uint64_t entry = 0, n = 0, used = 0;
    while (n < 4) {
      const First next = first[(window << used) & (kTableSize - 1)];
      if (used + next.bits > kMaxCodeBits) break;
      entry |= uint64_t{next.symbol} << (8 * n++);
      used += next.bits;
    }
    table[window] = entry | n << 32 | used << 40 | uint64_t{first[window].bits} << 48;
  }
}

const DecodeTable& table_of(const std::byte* lengths) {
  struct Kept {
    std::array<uint8_t, 256> lengths{};
    DecodeTable table{};
  };
  static thread_local std::unique_ptr<Kept> kept;
  if (kept == nullptr) kept = std::make_unique<Kept>();
  if (std::memcmp(kept->lengths.data(), lengths, 256) != 0) {
    std::memcpy(kept->lengths.data(), lengths, 256);
    fill_table(kept->lengths, kept->table);
  }
  return kept->table;
}

}  // namespace mneme::dfloat
