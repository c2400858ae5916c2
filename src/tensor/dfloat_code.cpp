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
  struct Code {
    uint64_t exponent;
    unsigned bits;
  };
  std::vector<Code> codes;  // in canonical order, so that each begins where the one before ends
  for (unsigned bits = 1; bits <= kMaxCodeBits; ++bits) {
    for (size_t s = 0; s < 256; ++s) {
      if (lengths[s] == bits) codes.push_back({s, bits});
    }
  }
  /// The windows [at, end) that begin with n codes of `used` bits.
  const auto fill = [&](const auto& again, size_t at, unsigned used, unsigned n, uint64_t exponents) -> void {
    const size_t end = at + (size_t{1} << (kMaxCodeBits - used));
    for (const Code& code : codes) {
      if (n == kMostCodes || used + code.bits > kMaxCodeBits) break;
      again(again, at, used + code.bits, n + 1, exponents | code.exponent << (8 * n));
      at += size_t{1} << (kMaxCodeBits - used - code.bits);
    }
    // The code of one symbol alone leaves half of the windows open: they mean that symbol too.
    if (n == 0 && at < end) used = n = 1, exponents = codes.front().exponent;
    std::fill(table.begin() + static_cast<long>(at), table.begin() + static_cast<long>(end),
              used | uint64_t{n} << kEntryCount | exponents << kEntryCodes);
  };
  fill(fill, 0, 0, 0, 0);
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
