#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "budget/page_pool.h"
#include "context/prefix_cache.h"
#include "engine/engine.h"
#include "engine/generation.h"

namespace mneme {

/// Runs many requests at once on one engine: continuous batching (Orca, OSDI 2022) with prompts in chunks (Sarathi,
/// arXiv 2308.16369). Each pass holds one token of every answering sequence and fills the rest of the batch with pieces of
/// waiting prompts, so a long prompt never stalls the answers.
///
/// A request is admitted when the keys and values of its worst case (prompt + max_tokens) fit the budget, less what it
/// shares with the cache, and then cannot run out of memory. Pages of requests that ended stay mapped for the next ones
/// as long as the budget has room (PagePool::Deferral). The answer of a request does not depend on its neighbours.
///
/// submit() and cancel() may be called from any thread; step() and run() from one thread at a time.
class Scheduler {
 public:
  using RequestId = uint64_t;

  /// `engine` and `cache` (or null), a cache of this engine's model and policy, must outlive the scheduler; at most
  /// plan().n_sequences requests run at once.
  explicit Scheduler(Engine& engine, PrefixCache* cache = nullptr);
  ~Scheduler();

  /// Queues a request. Throws Error for an empty or impossible one (tokens out of range, longer than the context with the
  /// exact numbers, wrong sampling options); everything later is reported through the request's events.
  RequestId submit(GenerationRequest request);
  /// Ends a request at the next token; its last event says kCancelled. Unknown ids are ignored.
  void cancel(RequestId id);

  /// One forward pass. Returns false when there is nothing to do.
  bool step();
  /// Steps until all requests are done.
  void run();
  /// Requests that wait or run.
  size_t n_pending() const;

 private:
  struct Active;

  void take_submissions();
  void admit();
  bool try_start(Active& active, bool alone);
  PrefixMatch look_up(const Active& active) const;
  bool reuse_cached(Active& active, size_t shared, const PrefixMatch& match);
  void keep_cached(Active& active, int64_t n_before);
  void pass();
  void deliver(Active& active, std::span<const float> logits);
  void finish(Active& active, FinishReason reason, const std::string& error = {},
              ErrorCode code = ErrorCode::kOutOfBudget);

  Engine& engine_;
  PrefixCache* cache_;
  PagePool::Deferral deferral_;
  double ns_per_token_ = 0;                      ///< Of recent passes.
  mutable std::mutex mutex_;                     ///< Guards incoming_, cancelled_ and next_id_.
  std::vector<std::unique_ptr<Active>> incoming_;
  std::vector<RequestId> cancelled_;
  RequestId next_id_ = 1;
  size_t n_pending_ = 0;
  std::deque<std::unique_ptr<Active>> waiting_;
  std::vector<std::unique_ptr<Active>> running_;
};

/// Runs one request alone and returns its result. Throws Error when it fails.
GenerationResult generate(Engine& engine, GenerationRequest request, PrefixCache* cache = nullptr);

}  // namespace mneme
