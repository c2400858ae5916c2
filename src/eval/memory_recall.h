#pragma once

#include <array>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/locomo.h"
#include "recall/search/search.h"

namespace mneme {

/// What a memory is made of.
enum class MemoryUnit { kTurn, kSession, kObservation };
/// What searches it.
enum class MemoryChannel {
  kBm25,     ///< plain_bm25.h over "speaker: text caption date": what the store has to beat.
  kVectors,  ///< The store's vectors alone.
  kHybrid,   ///< The store as it comes.
};
std::string_view unit_name(MemoryUnit unit);
std::string_view channel_name(MemoryChannel channel);
/// How many results are looked at: 5, 10, 25, 50; of sessions 2, 5, 10.
std::vector<size_t> cuts_of(MemoryUnit unit);

struct MemoryRecallOptions {
  recall::Embedder* embedder = nullptr;  ///< None: no vectors.
  recall::SearchWeights weights;
  double diversity = recall::Query{}.diversity;
  std::vector<MemoryUnit> units = {MemoryUnit::kTurn, MemoryUnit::kSession, MemoryUnit::kObservation};
  std::string store;  ///< Path of a store to make; empty: one in a temporary folder, removed at the end.
  uint64_t seed = 1;  ///< Of the bootstrap.
};

/// One question: the part of its evidence among the first results, for each cut.
struct QuestionRecall {
  int category = 0;
  size_t conversation = 0;
  std::vector<double> recall;
};

/// Evidence recall of one channel over one unit.
struct MemoryRecall {
  MemoryUnit unit = MemoryUnit::kTurn;
  MemoryChannel channel = MemoryChannel::kBm25;
  std::vector<size_t> cuts;
  std::vector<QuestionRecall> questions;
  double p50_ms = 0, p95_ms = 0;  ///< A search for 10; 0 for plain BM25.
  double context_tokens = 0;      ///< Mean of the first 10 results, estimated (recall::estimate_tokens).

  /// Mean over the questions of a category, 0 for all, at cuts[cut]; NaN without questions.
  double mean(int category, size_t cut) const;
};

/// A difference of means with its 95 % interval.
struct Interval {
  double difference = 0, low = 0, high = 0;
};
/// `a` minus `b` over the same questions: the paired bootstrap with 1000 resamples of questions.
Interval paired_bootstrap(const MemoryRecall& a, const MemoryRecall& b, int category, size_t cut, uint64_t seed);

struct MemoryReport {
  std::vector<MemoryRecall> rows;
  size_t n_conversations = 0, n_turns = 0, n_questions = 0, n_without_evidence = 0, n_unknown_ids = 0;
  double conversation_tokens = 0;  ///< Mean of a whole conversation, weighted by its questions.
  double ingest_seconds = 0;
};

/// Replays conversations in the order of time into a memory store, each as a user of its own, and asks their questions
/// at the end, at the time of the last session. A question's recall is |found evidence| / |evidence|; a session finds
/// the evidence said in it, an observation that of its turns. `each(done, all)` is called for each question asked.
/// Throws Error.
MemoryReport measure_memory_recall(std::span<const LocomoConversation> conversations,
                                   const MemoryRecallOptions& options,
                                   const std::function<void(uint64_t, uint64_t)>& each);

/// All numbers, with the intervals of the hybrid's gain over plain BM25 at 10 (sessions: 5).
Json to_json(const MemoryReport& report, const MemoryRecallOptions& options);

}  // namespace mneme
