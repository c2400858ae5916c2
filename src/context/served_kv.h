#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "context/attend_link.h"
#include "context/instinfer_kv.h"

namespace mneme {

/// What a worker has behind one connection: a store, and the answers to what a client asks of it. Nothing that comes
/// from a client is trusted.
class ServedKv {
 public:
  explicit ServedKv(Ledger& ledger) : ledger_(ledger) {}

  /// Most bytes that the next message may have.
  uint64_t most_bytes() const { return store_ ? kMostAttendBytes : sizeof(AttendConfig); }
  /// Answers a message in `out`. Throws Error for what makes no sense or cannot be done; refuse() tells the client.
  AttendMessage answer(AttendMessage message, std::span<const std::byte> payload, std::vector<std::byte>& out);
  static AttendMessage refuse(const Error& error, std::vector<std::byte>& out);

 private:
  void configure(const AttendConfig& config);
  void extend(StateReader& in, std::vector<std::byte>& out);
  void save(int64_t page, std::vector<std::byte>& out);
  AttendState state(bool done) const;

  Ledger& ledger_;
  KvShape shape_;
  std::unique_ptr<InstInferKv> store_;
};

}  // namespace mneme
