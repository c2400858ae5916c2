#pragma once

#include <memory>
#include <string>
#include <vector>

#include "context/attend_link.h"
#include "context/kv_choices.h"
#include "context/kv_layer.h"

namespace mneme {

/// InstInfer (arXiv 2409.04992) with the data elsewhere: keys and values go to workers (attend_worker.h), which keep
/// them and answer queries with outputs. Several workers have equal parts of the kv heads, in their order; outputs do
/// not depend on how many there are.
///
/// A token takes a layer 4 n_heads (key_dim + value_dim) + 2 n_kv_heads (key_dim + value_dim) bytes on the link, q and
/// out in f32, k and v in f16 as they are stored, and 104 bytes of headers and counts a call and worker, whatever the
/// length of the sequence. Up to 512 tokens go in one call.
///
/// A worker that is gone, or whose disk fails, ends the sequence with trouble(), which names it; nothing is tried
/// again.
class RemoteKv : public KvLayer {
 public:
  static StateSpec spec() {
    return StateSpec([](uint64_t) { return 0; });
  }
  static uint64_t working_bytes(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);

  /// Connects. Throws Error: kIo when a worker cannot be reached, kInvalidArgument when heads cannot be divided, and
  /// what a worker refuses.
  RemoteKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger);

  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  bool needs_queries() const override { return true; }

  uint64_t bytes() const override { return 0; }
  int64_t n_tokens() const override { return n_tokens_; }
  std::string_view trouble() const override { return trouble_; }
  FetchCounts fetches() const override;
  bool truncate(int64_t n_tokens) override;
  /// Through here, page by page, to a new connection.
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// Of each worker its length (u64) and what it saves, in their order.
  PageRange sealed_pages() const override { return {0, n_pages_}; }
  void save_page(int64_t page, StateWriter& out) const override { save(page, out); }
  bool save_rest(int64_t n_tokens, StateWriter& out) const override;
  void load_page(int64_t page, StateReader& in) override { load(page, in); }
  void load_rest(StateReader& in) override { load(-1, in); }

  /// Bytes of one call of n tokens on all links, both directions.
  static uint64_t call_bytes(const KvShape& shape, size_t n_heads, size_t n_tokens, size_t n_workers, bool with_sinks);

 private:
  struct Worker {
    std::string address;
    KvShape shape;  ///< Of its heads.
    size_t first_head;
    mutable Socket socket;
    FetchCounts fetches;
  };

  void connect(Worker& worker);
  void extend_some(const KvRows& rows, const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride);
  void save(int64_t page, StateWriter& out) const;
  void load(int64_t page, StateReader& in);
  void send(const Worker& worker, AttendMessage message, std::span<const std::byte> payload) const;
  /// The payload of the answer, which must be `expected` and of at most `most` bytes. Throws Error with the worker's
  /// name.
  std::vector<std::byte> receive(const Worker& worker, AttendMessage expected, uint64_t most) const;
  /// Sends a request that is answered by the state.
  AttendState ask(Worker& worker, AttendMessage message, std::span<const std::byte> payload);
  void take_state(Worker& worker, const AttendState& state);

  KvShape shape_;
  KvChoices choices_;
  uint64_t max_tokens_;
  Ledger& ledger_;
  std::vector<Worker> workers_;
  Reservation messages_;  ///< During a call.
  int64_t n_tokens_ = 0, n_pages_ = 0;
  mutable uint64_t link_bytes_ = 0;
  std::string trouble_;
};

}  // namespace mneme
