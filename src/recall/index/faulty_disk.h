#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/philox.h"
#include "recall/index/durable_file.h"
#include "recall/index/update_log.h"

namespace mneme::ann {

/// A disk that breaks, for tests: it fills up, writes less than asked, or loses power, and then what was not synced is
/// gone or torn. Outlives the files it opens.
class FaultyDisk {
 public:
  uint64_t room = std::numeric_limits<uint64_t>::max();  ///< Bytes that may still be written.
  size_t longest_write = std::numeric_limits<size_t>::max();
  uint64_t operations_until_cut = std::numeric_limits<uint64_t>::max();  ///< Writes and syncs; then all fail.

  OpenFile opener() {
    return [this](const std::string& path) { return std::make_unique<File>(path, *this); };
  }

  /// What the power cut left: of the writes since a file's last sync each is kept, undone or half undone by chance.
  /// Call it when no file is open.
  void lose_unsynced(uint64_t seed) {
    PhiloxStream random(seed);
    for (auto& [path, undo] : unsynced_) {
      if (::access(path.c_str(), F_OK) != 0) continue;  // removed since
      DurableFile file(path);
      for (auto step = undo.rbegin(); step != undo.rend(); ++step) {
        const uint64_t fate = random.next_below(3);
        if (fate == 0) continue;
        const size_t n = fate == 1 ? step->before.size() : step->before.size() / 2;
        file.write_at(step->offset, std::span(step->before).first(n));
        // A file that had grown is cut only when nothing behind is kept, so that torn and zeroed tails happen too.
        if (fate == 1 && step->size_before < file.size()) file.truncate(step->size_before);
      }
    }
    unsynced_.clear();
  }

 private:
  struct Undo {
    uint64_t offset, size_before;
    std::vector<std::byte> before;
  };

  class File : public DurableFile {
   public:
    File(const std::string& path, FaultyDisk& disk) : DurableFile(path), disk_(disk) {}

   protected:
    ssize_t write_some(uint64_t offset, std::span<const std::byte> bytes) override {
      if (disk_.cut()) return fail_with(EIO);
      bytes = bytes.first(std::min(bytes.size(), disk_.longest_write));
      if (disk_.room == 0) return fail_with(ENOSPC);
      bytes = bytes.first(std::min<uint64_t>(bytes.size(), disk_.room));
      const uint64_t size_before = size();
      Undo undo{
          offset, size_before,
          std::vector<std::byte>(std::min<uint64_t>(bytes.size(), size_before > offset ? size_before - offset : 0))};
      if (::pread(descriptor(), undo.before.data(), undo.before.size(), static_cast<off_t>(offset)) < 0) return -1;
      const ssize_t n = DurableFile::write_some(offset, bytes);
      if (n > 0) disk_.room -= static_cast<uint64_t>(n);
      disk_.unsynced_[path()].push_back(std::move(undo));
      return n;
    }
    int sync_now() override {
      if (disk_.cut()) return fail_with(EIO);
      disk_.unsynced_.erase(path());
      return 0;
    }
    int truncate_now(uint64_t bytes) override {
      if (disk_.operations_until_cut == 0) return fail_with(EIO);
      return DurableFile::truncate_now(bytes);
    }

   private:
    static int fail_with(int reason) {
      errno = reason;
      return -1;
    }
    FaultyDisk& disk_;
  };

  bool cut() {
    if (operations_until_cut == 0) return true;
    --operations_until_cut;
    return false;
  }

  std::map<std::string, std::vector<Undo>> unsynced_;
};

}  // namespace mneme::ann
