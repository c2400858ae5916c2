#include "context/block_kv.h"

#include <cstring>

#include "base/checked_math.h"

namespace mneme {

StateSpec BlockKv::spec_of(const KvShape& shape, const SealRhythm& rhythm, size_t block_bytes, uint64_t max_tokens,
                           uint64_t more) {
  const uint64_t fixed = OpenTail::reserved_bytes(shape, rhythm.tail_tokens(max_tokens)) + more;
  return StateSpec([=](uint64_t tokens) {
    return fixed + round_up<uint64_t>(rhythm.sealed(tokens) * block_bytes, GrowingBuffer::kStepBytes);
  });
}

BlockKv::BlockKv(const KvShape& shape, const SealRhythm& rhythm, size_t block_bytes, uint64_t max_tokens,
                 Ledger& ledger, const char* what)
    : TailKv(shape, rhythm, max_tokens, ledger),
      block_bytes_(block_bytes),
      blocks_(ledger, Tag::kKv,
              round_up<size_t>(std::max<size_t>(1, rhythm.sealed(max_tokens)) * block_bytes, GrowingBuffer::kStepBytes),
              what) {}

void BlockKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  // In pieces that end where a block is due, so that every query sees what was sealed before its own token.
  for (size_t first = 0; first < rows.n_tokens;) {
    const size_t n = std::min(rows.n_tokens - first, tail_room());
    append(rows, first, n);
    attend(queries, first, n, out + first * out_stride, out_stride);
    seal_if_due();
    first += n;
  }
}

void BlockKv::copy_blocks_to(BlockKv& copy) const {
  copy.blocks_.grow_to(blocks_.committed());
  std::memcpy(copy.blocks_.data(), blocks_.data(), blocks_.committed());
  copy_tail_to(copy);
}

}  // namespace mneme
