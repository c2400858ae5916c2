#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/function_ref.h"

namespace mneme {

/// Pieces of a file in items: what is used together lies together once it is read.
class PageList {
 public:
  struct Item {
    uint64_t block;
    size_t head;
    size_t first_run;  ///< Its runs end where those of the next item begin.
    size_t bytes;      ///< Of all its runs.
  };
  struct Run {
    uint64_t offset;
    size_t bytes;
  };

  void begin_item(uint64_t block, size_t head) { items_.push_back({block, head, runs_.size(), 0}); }
  /// Adds whole pages to the last item; a piece that begins where the one before it ends prolongs that.
  void add(uint64_t offset, size_t bytes);

  size_t size() const { return items_.size(); }
  const Item& operator[](size_t i) const { return items_[i]; }
  std::span<const Run> runs(size_t i) const;
  uint64_t bytes() const { return bytes_; }

 private:
  std::vector<Item> items_;
  std::vector<Run> runs_;
  uint64_t bytes_ = 0;
};

struct PageFailure {
  size_t item;
  int error;  ///< An errno, or AsyncReader::kFileEnded.
};

/// Reads a list through `memory` and hands it over in order, some items at a time: use(first, n, data), data[i] the
/// bytes of item first + i, while later ones are read into the other half. No item is larger than half of `memory`.
/// What cannot be read at the second attempt is returned, and nothing from there on is handed over.
std::optional<PageFailure> stream_pages(int file, const PageList& list, std::span<std::byte> memory,
                                        FunctionRef<void(size_t first, size_t n, std::byte* const* data)> use);

}  // namespace mneme
