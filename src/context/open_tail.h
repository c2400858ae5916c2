#pragma once

#include <cstddef>
#include <cstdint>

#include "budget/buffer.h"
#include "context/attention_spans.h"
#include "context/kv_layer.h"

namespace mneme {

/// The newest tokens of a sequence in full precision (f16), rotated, the part of a compressed store that still changes.
/// Keys and values of a head are contiguous: [head][capacity][dim].
class OpenTail {
 public:
  /// Bytes that a tail takes from the ledger.
  static uint64_t reserved_bytes(const KvShape& shape, size_t capacity);

  /// Throws Error(kOutOfBudget).
  OpenTail(const KvShape& shape, size_t capacity, Ledger& ledger);
  /// Takes the content of a tail of the same shape and capacity.
  void copy_from(const OpenTail& other);

  /// Appends rows [first, first + n) of `rows`; there must be room.
  void append(const KvRows& rows, size_t first, size_t n);
  /// Writes the tokens, and reads them back into an empty tail. Throws Error(kCorruptData) for more than there is room for.
  void save(StateWriter& out) const;
  void load(StateReader& in);
  /// Forgets the oldest n tokens.
  void drop_oldest(size_t n);
  /// Forgets all but the oldest n tokens.
  void truncate(size_t n) { size_ = n; }

  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  uint64_t bytes() const { return Buffer::reserved_bytes(keys_.size()) + Buffer::reserved_bytes(values_.size()); }

  /// Attention over the tail goes in runs that are cut where plain stores cut theirs, so that a store that has nothing but a
  /// tail gives the same bits. `first` is the position of the oldest token.
  size_t n_runs(int64_t first) const;
  /// Adds one run; row r of `rows` is the query at position first_query + rows.first_token + r / rows.group.
  void attend(const SpanRows& rows, size_t run, int64_t first, int64_t first_query,
              const kernels::AttentionTriple& result) const;

  /// Row of token i (0: the oldest) of a head: key_dim or value_dim f16.
  const std::byte* key(size_t head, size_t i) const { return keys_.data() + (head * capacity_ + i) * key_row_; }
  const std::byte* value(size_t head, size_t i) const { return values_.data() + (head * capacity_ + i) * value_row_; }
  size_t key_row_bytes() const { return key_row_; }
  size_t value_row_bytes() const { return value_row_; }

 private:
  KvShape shape_;
  size_t capacity_, key_row_, value_row_;
  Buffer keys_, values_;
  size_t size_ = 0;
};

}  // namespace mneme
