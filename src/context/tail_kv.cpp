#include "context/tail_kv.h"

#include "base/error.h"

namespace mneme {

uint64_t TailKv::blocks_after(size_t n_tokens) const {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  return std::max(n_sealed_, rhythm_.sealed(end));
}

void TailKv::reserve(size_t n_tokens) {
  make_room(blocks_after(n_tokens));
}

void TailKv::append(const KvRows& rows, size_t first, size_t n) {
  tail_.append(rows, first, n);
  n_tokens_ += static_cast<int64_t>(n);
}

void TailKv::seal_if_due() {
  if (tail_room() > 0) return;
  ++n_sealed_;
  seal();
  tail_.drop_oldest(rhythm_.block_tokens);
}

bool TailKv::truncate(int64_t n_tokens) {
  const auto sealed = static_cast<int64_t>(n_sealed_ * rhythm_.block_tokens);
  if (n_tokens < sealed || n_tokens > n_tokens_ || !trouble().empty()) return false;
  tail_.truncate(static_cast<size_t>(n_tokens - sealed));
  n_tokens_ = n_tokens;
  return true;
}

void TailKv::copy_tail_to(TailKv& copy) const {
  copy.tail_.copy_from(tail_);
  copy.n_tokens_ = n_tokens_;
  copy.n_sealed_ = n_sealed_;
}

int64_t TailKv::first_page(int64_t) const {
  return static_cast<int64_t>(rhythm_.unpaged_blocks / rhythm_.page_blocks());
}

PageRange TailKv::sealed_pages() const {
  const int64_t begin = first_page(n_tokens_);
  return {begin, std::max(begin, static_cast<int64_t>(n_sealed_ / rhythm_.page_blocks()))};
}

void TailKv::save_page(int64_t page, StateWriter& out) const {
  save_blocks(static_cast<uint64_t>(page) * rhythm_.page_blocks(), rhythm_.page_blocks(), out);
}

bool TailKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  if (n_tokens != n_tokens_ || !trouble().empty()) return false;
  out.put(n_tokens_);
  out.put(n_sealed_);
  if (const uint64_t unpaged = std::min(n_sealed_, rhythm_.unpaged_blocks); unpaged > 0) save_blocks(0, unpaged, out);
  const uint64_t in_pages = static_cast<uint64_t>(sealed_pages().end) * rhythm_.page_blocks();
  if (n_sealed_ > in_pages) save_blocks(in_pages, n_sealed_ - in_pages, out);
  save_beside_blocks(out);
  tail_.save(out);
  save_beside_tail(out);
  return true;
}

void TailKv::count_blocks(uint64_t n_blocks) {
  if (n_blocks > rhythm_.sealed(max_tokens_)) {
    fail(ErrorCode::kContextOverflow, "[load keys and values] expected at most {} tokens of context, found more",
         max_tokens_);
  }
  make_room(n_blocks);
  n_sealed_ = n_blocks;
}

void TailKv::load_page(int64_t page, StateReader& in) {
  const uint64_t first = std::max(n_sealed_, rhythm_.unpaged_blocks), page_blocks = rhythm_.page_blocks();
  if (page < 0 || static_cast<uint64_t>(page) != first / page_blocks || first % page_blocks != 0 || tail_.size() > 0) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected page {}, found page {}", first / page_blocks, page);
  }
  count_blocks(first + page_blocks);
  load_blocks(first, page_blocks, in);
  n_tokens_ = static_cast<int64_t>(n_sealed_ * rhythm_.block_tokens);
  in.finish();
}

void TailKv::load_rest(StateReader& in) {
  const auto n_tokens = in.get<int64_t>();
  const auto n_sealed = in.get<uint64_t>();
  const uint64_t before = n_sealed_;
  const uint64_t paged = std::max(before, rhythm_.unpaged_blocks);  // what pages hold ends here
  // What was truncated may have more blocks than a fresh sequence of that length, but never fewer.
  const bool possible = n_tokens >= 0 && static_cast<uint64_t>(n_tokens) <= max_tokens_ && n_sealed >= before &&
                        n_sealed < paged + rhythm_.page_blocks() &&
                        n_sealed * rhythm_.block_tokens <= static_cast<uint64_t>(n_tokens) &&
                        n_sealed >= rhythm_.sealed(static_cast<uint64_t>(n_tokens));
  if (!possible) {
    fail(ErrorCode::kCorruptData,
         "[load keys and values] expected the rest of {} blocks or a few more, found {} blocks for {} tokens", before,
         n_sealed, n_tokens);
  }
  count_blocks(n_sealed);
  if (const uint64_t unpaged = std::min(n_sealed, rhythm_.unpaged_blocks); unpaged > 0) load_blocks(0, unpaged, in);
  if (n_sealed > paged) load_blocks(paged, n_sealed - paged, in);
  load_beside_blocks(in);
  tail_.load(in);
  const uint64_t recent = static_cast<uint64_t>(n_tokens) - n_sealed * rhythm_.block_tokens;
  if (tail_.size() != recent) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected {} recent tokens, found {}", recent, tail_.size());
  }
  load_beside_tail(in);
  in.finish();
  n_tokens_ = n_tokens;
}

}  // namespace mneme
