#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "budget/buffer.h"
#include "context/block_files.h"
#include "context/page_tier.h"
#include "context/page_writer.h"

namespace mneme {

/// Blocks of a cache in the files of one folder. Bytes are counted in the disk tier; when there is no more room, what
/// was not used for longest goes. When the disk is full or gone, blocks are dropped. Files stay for the next process.
class PageDisk : public PageTier {
 public:
  /// Throws Error(kIo) when the folder cannot be made or read.
  PageDisk(Ledger& ledger, std::string folder, uint64_t max_bytes = ~uint64_t{0});

  std::vector<bool> has(std::span<const uint64_t> hashes) override;
  void put(uint64_t hash, std::shared_ptr<const GrowingBuffer> block) override;
  /// Reads all of them at once.
  std::vector<std::shared_ptr<const GrowingBuffer>> get(std::span<const uint64_t> hashes) override;
  void remove(uint64_t hash) override;
  void flush() override { writer_.flush(); }
  double ns_per_byte() const override { return 1; }  // a device of 1 GB/s
  std::string trouble() const override;

  uint64_t bytes() const;
  bool has_ring() const { return files_.has_ring(); }

 private:
  struct Entry {
    uint64_t bytes;
    std::list<uint64_t>::iterator age;
  };

  std::string path_of(uint64_t hash) const;
  void read_folder();
  void write(uint64_t hash, const PageWriter::Block& block);
  bool make_room(uint64_t bytes);
  void add(uint64_t hash, uint64_t bytes);
  void drop(uint64_t hash);

  Ledger& ledger_;
  std::string folder_;
  uint64_t max_bytes_;
  std::mutex reading_;  ///< Held while files_ reads.
  BlockFiles files_;
  mutable std::mutex mutex_;
  Reservation disk_;
  std::unordered_map<uint64_t, Entry> entries_;
  std::list<uint64_t> ages_;  ///< Longest unused first.
  std::string trouble_;
  PageWriter writer_;  ///< Last: its thread uses the others.
};

}  // namespace mneme
