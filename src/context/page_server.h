#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "context/page_tier.h"
#include "context/page_writer.h"

struct redisContext;

namespace mneme {

/// Blocks of a cache in a Redis server, for several machines: key "mneme:page:" and the hash in hexadecimal. What the
/// server keeps and for how long is its own affair (maxmemory, eviction). When it does not answer, the cache goes on
/// without it, and it is tried again after a while.
class PageServer : public PageTier {
 public:
  struct Options {
    std::string socket;  ///< Path of a Unix socket; else host and port.
    std::string host = "127.0.0.1";
    int port = 6379;
    int timeout_ms = 1000;                          ///< For connecting and for each answer.
    int retry_ms = 5000;                            ///< After a failure.
    uint64_t max_block_bytes = uint64_t{64} << 20;  ///< Larger answers are not believed.
  };

  PageServer(Ledger& ledger, Options options);
  ~PageServer() override;

  std::vector<bool> has(std::span<const uint64_t> hashes) override;
  void put(uint64_t hash, std::shared_ptr<const GrowingBuffer> block) override;
  std::vector<std::shared_ptr<const GrowingBuffer>> get(std::span<const uint64_t> hashes) override;
  void remove(uint64_t hash) override;
  void flush() override { writer_.flush(); }
  double ns_per_byte() const override { return 10; }  // a network of 1 Gbit/s
  std::string trouble() const override;

 private:
  class Connection;

  Ledger& ledger_;
  Options options_;
  mutable std::mutex mutex_;  ///< Guards trouble_.
  std::string trouble_;
  std::unique_ptr<Connection> reading_, writing_;
  PageWriter writer_;  ///< Last: its thread uses the others.
};

}  // namespace mneme
