#pragma once

#include <algorithm>
#include <cstddef>

/// Asking for memory before it is used. What streams by goes to the second cache: the first has too few misses in
/// flight, so that asking for more than a few lines there stalls the loads behind; measured, such a prefetch is worse
/// than none.
namespace mneme::kernels {

/// How far ahead of its use a stream of keys or values is asked for: more than memory delivers in its latency, and
/// little beside the second cache.
inline constexpr size_t kAheadBytes = 8192;

// GCC 12 takes a function that only prefetches for one without effect and drops its calls, unless they are inlined at
// once.
#define MNEME_PREFETCH_INLINE inline __attribute__((always_inline))

/// Asks for the cache line at `at`. Any address will do, also one that is not mapped.
MNEME_PREFETCH_INLINE void prefetch_line(const std::byte* at) {
  __builtin_prefetch(at, 0, 2);
}

/// Asks for the lines of [at, at + bytes).
MNEME_PREFETCH_INLINE void prefetch_bytes(const std::byte* at, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) prefetch_line(at + i);
}

/// Rows of a run that are read one after the other, asked for kAheadBytes before their use. Behind the run's last row
/// comes the first of the next run, if there is one.
struct RowsAhead {
  size_t distance = 0;              ///< Bytes from a row in use to the row to ask for.
  const std::byte* end = nullptr;   ///< Behind the run's last row; null: nothing is asked for.
  const std::byte* next = nullptr;  ///< Run that is read after this one, or null.

  RowsAhead() = default;
  RowsAhead(const std::byte* run, size_t n_rows, size_t row_bytes, size_t stride_bytes, const std::byte* next_run)
      : distance(std::max<size_t>(1, kAheadBytes / std::max<size_t>(1, row_bytes)) * stride_bytes),
        end(run + n_rows * stride_bytes),
        next(next_run) {}

  /// Asks for what lies `distance` behind `row`, `offset` bytes into it.
  MNEME_PREFETCH_INLINE void ask(const std::byte* row, size_t offset) const {
    const std::byte* at = row + distance;
    if (at >= end) {
      if (next == nullptr) return;
      at = next + (at - end);
    }
    prefetch_line(at + offset);
  }
};

#undef MNEME_PREFETCH_INLINE

}  // namespace mneme::kernels
