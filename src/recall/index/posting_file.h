#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "budget/buffer.h"
#include "recall/index/durable_file.h"
#include "recall/index/posting_list.h"

namespace mneme::ann {

/// Where a list lies, and the name in its header. A list without elements has no pages.
struct ListEntry {
  uint32_t page = 0, pages = 0, count = 0, name = 0;
};

/// The file of posting lists. A list is never changed in place: it is written to free pages, and its old pages are free
/// again only when a checkpoint that no longer names them is durable. So whatever a durable checkpoint names is whole.
///
/// One writer at a time; descriptor() may be read from on any thread.
class PostingFile {
 public:
  PostingFile(Ledger& ledger, std::unique_ptr<DurableFile> file, size_t element_bytes);
  ~PostingFile();

  /// Takes over the lists of a checkpoint; all other pages are free. Throws Error(kCorruptData) when lists overlap or
  /// lie outside the file.
  void adopt(std::span<const ListEntry> lists);
  /// Writes a list to free pages. Throws Error(kIo), a full disk included; then nothing changed.
  ListEntry write(uint32_t name, const PostingView& list);
  /// Reads and checks a list. Throws Error(kIo or kCorruptData).
  Posting read(const ListEntry& entry) const;
  /// Drops a list; its pages wait for release_dropped().
  void drop(const ListEntry& entry);
  void sync() { file_->sync(); }
  /// The checkpoint without the dropped lists is durable.
  void release_dropped();
  /// Overwrites free pages with zeros and syncs.
  void clear_free_pages();

  int descriptor() const { return direct_; }  ///< For page-aligned reads.
  const std::string& path() const { return file_->path(); }
  uint64_t n_pages() const { return n_pages_; }
  uint64_t n_free_pages() const;  ///< Dropped ones included.
  uint64_t bytes() const { return reservation_.bytes(); }

 private:
  uint32_t allocate(uint32_t pages);
  void release(uint32_t page, uint32_t pages);
  void count_memory();

  std::unique_ptr<DurableFile> file_;
  Reservation reservation_;
  int direct_ = -1;
  size_t element_bytes_;
  uint64_t n_pages_ = 0;
  std::map<uint32_t, uint32_t> free_;                       ///< First page and length, apart from each other.
  std::set<std::pair<uint32_t, uint32_t>> free_by_length_;  ///< Length and first page of the same.
  std::vector<ListEntry> dropped_;
};

}  // namespace mneme::ann
