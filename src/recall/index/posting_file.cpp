#include "recall/index/posting_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "context/async_reader.h"

namespace mneme::ann {

PostingFile::PostingFile(Ledger& ledger, std::unique_ptr<DurableFile> file, size_t element_bytes)
    : file_(std::move(file)),
      reservation_(ledger.reserve(Tag::kIndex, 0, "free pages")),
      element_bytes_(element_bytes) {
  direct_ = open_direct(file_->path().c_str());
}

PostingFile::~PostingFile() {
  ::close(direct_);
}

void PostingFile::adopt(std::span<const ListEntry> lists) {
  std::vector<ListEntry> sorted;
  for (const ListEntry& entry : lists) {
    if (entry.pages > 0) sorted.push_back(entry);
  }
  std::sort(sorted.begin(), sorted.end(), [](const ListEntry& a, const ListEntry& b) { return a.page < b.page; });
  const uint64_t file_pages = file_->size() / kPageBytes;
  free_.clear();
  free_by_length_.clear();
  dropped_.clear();
  uint64_t end = 0;
  for (const ListEntry& entry : sorted) {
    if (entry.page < end || uint64_t{entry.page} + entry.pages > file_pages) {
      fail(ErrorCode::kCorruptData,
           "[open index] {}: expected lists apart from each other in {} pages, found one at page {} of {}", path(),
           file_pages, entry.page, entry.pages);
    }
    if (entry.page > end) release(static_cast<uint32_t>(end), static_cast<uint32_t>(entry.page - end));
    end = uint64_t{entry.page} + entry.pages;
  }
  n_pages_ = end;
  file_->truncate(n_pages_ * kPageBytes);  // pages of an interrupted change
  count_memory();
}

uint32_t PostingFile::allocate(uint32_t pages) {
  const auto fit = free_by_length_.lower_bound({pages, 0});
  if (fit == free_by_length_.end()) {
    if (n_pages_ + pages > 0xFFFFFFFFu)
      fail(ErrorCode::kUnsupported, "[write list] {}: expected under 16 TiB of lists", path());
    n_pages_ += pages;
    return static_cast<uint32_t>(n_pages_ - pages);
  }
  const auto [length, page] = *fit;
  free_by_length_.erase(fit);
  free_.erase(page);
  if (length > pages) {
    free_.emplace(page + pages, length - pages);
    free_by_length_.emplace(length - pages, page + pages);
  }
  return page;
}

void PostingFile::release(uint32_t page, uint32_t pages) {
  const auto after = free_.lower_bound(page);
  if (after != free_.end() && after->first == page + pages) {
    pages += after->second;
    free_by_length_.erase({after->second, after->first});
    free_.erase(after);
  }
  const auto next = free_.lower_bound(page);
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == page) {
      page = before->first;
      pages += before->second;
      free_by_length_.erase({before->second, before->first});
      free_.erase(before);
    }
  }
  free_.emplace(page, pages);
  free_by_length_.emplace(pages, page);
}

ListEntry PostingFile::write(uint32_t name, const PostingView& list) {
  if (list.slots.empty()) return {};
  const auto pages = static_cast<uint32_t>(posting_pages(list.slots.size(), element_bytes_));
  std::vector<uint64_t> bytes(pages * kPageBytes / sizeof(uint64_t));
  const auto target = std::as_writable_bytes(std::span(bytes));
  encode_posting(name, list, target);
  const uint64_t end_before = n_pages_;
  const uint32_t page = allocate(pages);
  try {
    file_->write_at(uint64_t{page} * kPageBytes, target);
  } catch (const Error&) {
    if (page == end_before) {
      n_pages_ = end_before;
    } else {
      release(page, pages);
    }
    throw;
  }
  return {page, pages, static_cast<uint32_t>(list.slots.size()), name};
}

Posting PostingFile::read(const ListEntry& entry) const {
  Posting posting;
  if (entry.pages == 0) return posting;
  const size_t bytes = entry.pages * kPageBytes;
  const std::unique_ptr<std::byte, decltype(&std::free)> pages(
      static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes)), &std::free);
  if (pages == nullptr) fail(ErrorCode::kOutOfBudget, "[read list] no memory for {} bytes", bytes);
  for (size_t at = 0; at < bytes;) {
    const ssize_t n =
        ::pread(direct_, pages.get() + at, bytes - at, static_cast<off_t>(uint64_t{entry.page} * kPageBytes + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("read", path());
    if (n == 0)
      fail(ErrorCode::kCorruptData, "[read list] {}: expected list {}, found the end of the file", path(), entry.name);
    at += static_cast<size_t>(n);
  }
  const PostingView view = parse_posting({pages.get(), bytes}, entry.name, entry.count, element_bytes_);
  posting.slots.assign(view.slots.begin(), view.slots.end());
  posting.elements.assign(view.elements.begin(), view.elements.end());
  return posting;
}

void PostingFile::drop(const ListEntry& entry) {
  if (entry.pages > 0) dropped_.push_back(entry);
}

void PostingFile::release_dropped() {
  for (const ListEntry& entry : dropped_) release(entry.page, entry.pages);
  dropped_.clear();
  count_memory();
}

void PostingFile::clear_free_pages() {
  constexpr uint64_t kPiece = uint64_t{1} << 20;
  const std::vector<std::byte> zeros(kPiece);
  for (const auto& [page, length] : free_) {
    uint64_t at = uint64_t{page} * kPageBytes;
    for (uint64_t left = uint64_t{length} * kPageBytes; left > 0;) {
      const uint64_t n = std::min(left, kPiece);
      file_->write_at(at, std::span(zeros).first(n));
      at += n;
      left -= n;
    }
  }
  file_->sync();
}

uint64_t PostingFile::n_free_pages() const {
  uint64_t pages = 0;
  for (const auto& [page, length] : free_) pages += length;
  for (const ListEntry& entry : dropped_) pages += entry.pages;
  return pages;
}

void PostingFile::count_memory() {
  reservation_.resize(free_.size() * 2 * 48);
}

}  // namespace mneme::ann
