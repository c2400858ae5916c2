#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "budget/ledger.h"

namespace mneme::train {

/// Bytes of a transfer, its place in the file and its address in memory are multiples of this.
constexpr size_t kTransferAlign = 4096;

/// A file without a name that holds activations between forward and backward, and a thread that moves them. Transfers
/// run in the order in which they were asked for, so a read sees every write before it. The file bypasses the page cache
/// where the file system can, so that the bytes are really out of memory; it is counted under Tier::kDisk.
///
/// One thread asks and waits; memory of a transfer must stay until it was waited for.
class ScratchFile {
 public:
  /// At most `max_pending` transfers are under way; asking for more waits. Throws Error: kOutOfBudget by the ledger,
  /// kIo when the disk has no room for the file.
  ScratchFile(Ledger& ledger, const std::string& folder, size_t bytes, size_t max_pending);
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  /// Waits for what is under way.
  ~ScratchFile();

  /// Each starts a transfer and returns its ticket.
  uint64_t write(const std::byte* from, size_t bytes, size_t offset);
  uint64_t read(std::byte* to, size_t bytes, size_t offset);
  /// Returns when the transfer and all before it are done. Throws Error(kIo) once any has failed.
  void wait(uint64_t ticket);
  /// Returns when nothing is under way, failed or not.
  void drain() noexcept;

  size_t bytes() const { return bytes_; }

 private:
  struct Transfer {
    std::byte* memory;
    size_t bytes, offset;
    bool write;
  };

  uint64_t ask(const Transfer& transfer);
  void work();
  void move(const Transfer& transfer);

  size_t bytes_;
  Reservation reservation_;
  std::string folder_;
  int file_ = -1;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Transfer> ring_;
  uint64_t asked_ = 0, done_ = 0;  ///< Transfer i is in ring_[i % size] until it is done.
  bool closing_ = false;
  std::string error_;  ///< Of the first transfer that failed; later ones are skipped.
  std::thread thread_;
};

}  // namespace mneme::train
