#include "context/open_tail.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "base/parallel.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

constexpr int64_t kRunTokens = 256;

size_t bytes_of(const KvShape& shape, size_t dim, size_t capacity) { return shape.n_kv_heads * capacity * dim * 2; }

}  // namespace

uint64_t OpenTail::reserved_bytes(const KvShape& shape, size_t capacity) {
  return Buffer::reserved_bytes(bytes_of(shape, shape.key_dim, capacity)) +
         Buffer::reserved_bytes(bytes_of(shape, shape.value_dim, capacity));
}

OpenTail::OpenTail(const KvShape& shape, size_t capacity, Ledger& ledger)
    : shape_(shape),
      capacity_(capacity),
      key_row_(size_t{shape.key_dim} * 2),
      value_row_(size_t{shape.value_dim} * 2),
      keys_(ledger, Tag::kKv, bytes_of(shape, shape.key_dim, capacity), "recent keys"),
      values_(ledger, Tag::kKv, bytes_of(shape, shape.value_dim, capacity), "recent values") {}

void OpenTail::copy_from(const OpenTail& other) {
  assert(capacity_ == other.capacity_);
  std::memcpy(keys_.data(), other.keys_.data(), keys_.size());
  std::memcpy(values_.data(), other.values_.data(), values_.size());
  size_ = other.size_;
}

void OpenTail::save(StateWriter& out) const {
  out.put(uint64_t{size_});
  for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
    out.write({key(head, 0), size_ * key_row_});
    out.write({value(head, 0), size_ * value_row_});
  }
}

void OpenTail::load(StateReader& in) {
  const auto n = in.get<uint64_t>();
  if (n > capacity_) fail(ErrorCode::kCorruptData, "[load recent tokens] expected at most {}, found {}", capacity_, n);
  for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
    in.copy_to(keys_.data() + head * capacity_ * key_row_, n * key_row_);
    in.copy_to(values_.data() + head * capacity_ * value_row_, n * value_row_);
  }
  size_ = n;
}

void OpenTail::append(const KvRows& rows, size_t first, size_t n) {
  assert(size_ + n <= capacity_);
  const kernels::VectorOps& ops = kernels::vector_ops();
  parallel_for(n, 16, [&](size_t begin, size_t end) {
    std::vector<float> key(size_t{shape_.n_kv_heads} * shape_.key_dim);
    for (size_t t = begin; t < end; ++t) {
      const size_t row = first + t, slot = size_ + t;
      std::copy_n(rows.k + row * rows.k_stride, key.size(), key.data());
      if (rows.angles != nullptr) {
        rows.angles->rotate(key.data(), shape_.n_kv_heads, shape_.key_dim, rows.first_angle + row);
      }
      for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
        ops.f32_to_f16(key.data() + head * shape_.key_dim, shape_.key_dim,
                       keys_.data() + (head * capacity_ + slot) * key_row_);
        ops.f32_to_f16(rows.v + row * rows.v_stride + head * shape_.value_dim, shape_.value_dim,
                       values_.data() + (head * capacity_ + slot) * value_row_);
      }
    }
  });
  size_ += n;
}

void OpenTail::drop_oldest(size_t n) {
  assert(n <= size_);
  size_ -= n;
  for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
    std::byte* const k = keys_.data() + head * capacity_ * key_row_;
    std::byte* const v = values_.data() + head * capacity_ * value_row_;
    std::memmove(k, k + n * key_row_, size_ * key_row_);
    std::memmove(v, v + n * value_row_, size_ * value_row_);
  }
}

size_t OpenTail::n_runs(int64_t first) const {
  if (size_ == 0) return 0;
  return static_cast<size_t>((first + static_cast<int64_t>(size_) - 1) / kRunTokens - first / kRunTokens + 1);
}

void OpenTail::attend(const SpanRows& rows, size_t run, int64_t first, int64_t first_query,
                      const kernels::AttentionTriple& result) const {
  const int64_t cut = (first / kRunTokens + static_cast<int64_t>(run)) * kRunTokens;
  const int64_t start = std::max(first, cut), stop = std::min(first + static_cast<int64_t>(size_), cut + kRunTokens);
  const size_t n_rows = rows.queries.n_rows;
  std::vector<uint32_t> range(2 * n_rows, 0);
  for (size_t r = 0; r < n_rows; ++r) {
    const int64_t position = first_query + static_cast<int64_t>(rows.first_token + r / rows.group);
    range[n_rows + r] = static_cast<uint32_t>(std::clamp<int64_t>(position + 1 - start, 0, stop - start));
  }
  const auto at = static_cast<size_t>(start - first);
  kernels::attend(rows.queries,
                  {key(rows.head, at), value(rows.head, at), key_row_, value_row_, DType::kF16, range.data(),
                   range.data() + n_rows},
                  result);
}

}  // namespace mneme
