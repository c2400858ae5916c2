#include "context/page_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"

namespace mneme {
namespace {

constexpr std::string_view kEnding = ".page";

}  // namespace

PageDisk::PageDisk(Ledger& ledger, std::string folder, uint64_t max_bytes)
    : ledger_(ledger),
      folder_(std::move(folder)),
      max_bytes_(max_bytes),
      disk_(ledger.reserve(Tag::kCache, 0, "cached pages", Tier::kDisk)),
      writer_([this](uint64_t hash, const PageWriter::Block& block) { write(hash, block); }) {
  const std::lock_guard lock(mutex_);
  read_folder();
}

std::string PageDisk::path_of(uint64_t hash) const {
  return fmt::format("{}/{:016x}{}", folder_, hash, kEnding);
}

/// Takes over the files of earlier processes, oldest first, as far as they fit.
void PageDisk::read_folder() {
  namespace fs = std::filesystem;
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem) fail(ErrorCode::kIo, "[open cache] {}: {}", folder_, problem.message());
  struct Found {
    fs::file_time_type time;
    uint64_t hash, bytes;
  };
  std::vector<Found> found;
  for (const auto& file : fs::directory_iterator(folder_, problem)) {
    const std::string name = file.path().filename().string();
    if (name.size() != 16 + kEnding.size() || !name.ends_with(kEnding)) continue;
    uint64_t hash = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + 16, hash, 16);
    if (error != std::errc() || end != name.data() + 16) continue;
    const uint64_t bytes = file.file_size(problem);
    if (!problem) found.push_back({file.last_write_time(problem), hash, bytes});
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.time < b.time; });
  for (const Found& file : found) {
    if (make_room(file.bytes)) {
      add(file.hash, file.bytes);
    } else {
      fs::remove(path_of(file.hash), problem);
    }
  }
}

/// Removes what was not used for longest until so many bytes are free, and reserves them. Under the lock.
bool PageDisk::make_room(uint64_t bytes) {
  for (;;) {
    if (bytes <= max_bytes_ && disk_.bytes() <= max_bytes_ - bytes) {
      try {
        disk_.resize(disk_.bytes() + bytes);
        return true;
      } catch (const Error&) {  // the tier's limit
      }
    }
    if (ages_.empty()) return false;
    drop(ages_.front());
  }
}

void PageDisk::add(uint64_t hash, uint64_t bytes) {
  entries_[hash] = {bytes, ages_.insert(ages_.end(), hash)};
}

void PageDisk::drop(uint64_t hash) {
  const auto found = entries_.find(hash);
  if (found == entries_.end()) return;
  std::error_code ignored;
  std::filesystem::remove(path_of(hash), ignored);
  disk_.resize(disk_.bytes() - found->second.bytes);
  ages_.erase(found->second.age);
  entries_.erase(found);
}

std::vector<bool> PageDisk::has(std::span<const uint64_t> hashes) {
  const std::lock_guard lock(mutex_);
  std::vector<bool> out;
  for (const uint64_t hash : hashes) out.push_back(entries_.contains(hash));
  return out;
}

void PageDisk::put(uint64_t hash, std::shared_ptr<const GrowingBuffer> block) {
  if (writer_.put(hash, std::move(block))) return;
  const std::lock_guard lock(mutex_);
  trouble_ = "[write] the disk is slower than pages are made; some were not written";
}

void PageDisk::write(uint64_t hash, const PageWriter::Block& block) {
  const uint64_t bytes = block->committed();
  {
    const std::lock_guard lock(mutex_);
    if (entries_.contains(hash)) return;
    if (!make_room(bytes)) {
      trouble_ = "[write] the disk tier's budget is too small for a page";
      return;
    }
  }
  std::string trouble;
  try {
    BlockFiles::write(path_of(hash), {block->data(), bytes});
  } catch (const Error& e) {
    trouble = e.what();
  }
  const std::lock_guard lock(mutex_);
  trouble_ = trouble;
  if (trouble.empty()) {
    add(hash, bytes);
  } else {
    disk_.resize(disk_.bytes() - bytes);
  }
}

std::vector<std::shared_ptr<const GrowingBuffer>> PageDisk::get(std::span<const uint64_t> hashes) {
  std::vector<std::shared_ptr<GrowingBuffer>> buffers;
  std::vector<BlockFiles::Read> reads;
  std::vector<uint64_t> sizes;
  {
    const std::lock_guard lock(mutex_);
    for (const uint64_t hash : hashes) {
      const auto found = entries_.find(hash);
      if (found == entries_.end()) break;
      ages_.splice(ages_.end(), ages_, found->second.age);
      sizes.push_back(found->second.bytes);
    }
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    try {
      auto buffer = std::make_shared<GrowingBuffer>(ledger_, Tag::kCache, sizes[i], "cached page");
      buffer->grow_to(sizes[i]);
      reads.push_back({path_of(hashes[i]), {buffer->data(), buffer->committed()}});
      buffers.push_back(std::move(buffer));
    } catch (const Error&) {
      break;
    }
  }
  {
    const std::lock_guard lock(reading_);
    files_.read(reads);
  }
  std::vector<std::shared_ptr<const GrowingBuffer>> out(hashes.size());
  for (size_t i = 0; i < reads.size() && reads[i].done; ++i) out[i] = std::move(buffers[i]);
  return out;
}

void PageDisk::remove(uint64_t hash) {
  const std::lock_guard lock(mutex_);
  drop(hash);
}

uint64_t PageDisk::bytes() const {
  const std::lock_guard lock(mutex_);
  return disk_.bytes();
}

std::string PageDisk::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

}  // namespace mneme
