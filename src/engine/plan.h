#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/adapters.h"
#include "model/model.h"

namespace mneme {

/// What the user wants to run in.
struct PlanRequest {
  uint64_t memory = 0;              ///< Limit in bytes; 0: all of the machine's.
  std::optional<uint64_t> context;  ///< Tokens of one sequence; without it, as many as fit up to the trained length.
  uint32_t n_sequences = 1;         ///< Sequences that run side by side; 0: as many as fit.
  std::optional<uint32_t> batch;    ///< Tokens of one forward pass; without it, the largest of 512, 256, ... that fits.
  KvPolicy kv = KvPolicy::parse("f16");
  bool pack = true;  ///< Re-arrange weights for the processor.
  std::vector<AdapterChoice> adapters = {};
  bool grammar = false;  ///< Requests may bring a grammar: keep room for what it needs.
  bool session = false;  ///< The sequence is kept in a session on disk.
  /// Tokens of the text that a guard of the policy compares with f16 from time to time; 0: there is none.
  uint32_t guard_tokens = 0;
};

/// Where each byte will go, computed from headers before anything is loaded.
struct MemoryPlan {
  struct Row {
    Tag tag;
    std::string what;
    uint64_t bytes;
  };
  std::vector<Row> rows;
  uint64_t limit = 0;
  uint64_t context = 0;
  uint32_t n_sequences = 1;
  uint32_t batch = 0;
  bool pack = true;
  uint64_t weight_bytes_per_token = 0;     ///< Weights read to produce one token (of the experts only those used).
  uint64_t kv_bytes_per_token_at_end = 0;  ///< Keys and values read for one token when the context is full.
  size_t stack_blocks = 0;                 ///< BitStack blocks to load, of ModelWeights::stack; 0 without one.
  uint64_t stack_bytes = 0;                ///< What they take; part of the rows.
  uint64_t kv_disk_bytes = 0;  ///< What files of keys and values take on disk at full contexts; not in the rows.
  uint64_t session_bytes = 0;  ///< Most that a session's file takes on disk; not in the rows.

  uint64_t total() const;
  uint64_t bytes(Tag tag) const;
  /// Tokens per second of one sequence, when reading `bytes_per_second` bounds it, with an empty and a full context.
  double decode_rate(double bytes_per_second) const;
  double decode_rate_full(double bytes_per_second) const;
};

/// Bytes that neither context nor batch change.
struct FixedBytes {
  uint64_t runtime = 0;   ///< What the process holds already: program, libraries, vocabulary.
  uint64_t grammar = 0;   ///< What all grammars need together, when the request wants them.
  uint64_t adapters = 0;  ///< Factors of adapters.
  uint64_t masks = 0;     ///< What grammars need besides for each sequence.
};

/// Sequences of a plan at most.
constexpr uint32_t kMostSequences = 4096;

/// Makes the plan. As many sequences as fit (PlanRequest::n_sequences = 0) are as many of the context asked for, or the
/// trained one, as leave passes of 128 tokens; one when not even that fits. A model of BitStack matrices gets as many
/// blocks as fit: all of them if that leaves the context asked for (2048 tokens when none was, or the trained length),
/// else what that context and passes of 128 tokens leave, and only when one block of each matrix is still too much, a
/// shorter context. Throws Error(kOutOfBudget) with the table's sums, the least memory that would do and what to
/// change, or Error(kInvalidArgument) for a context beyond the trained one.
MemoryPlan make_plan(const Model& model, const PlanRequest& request, const FixedBytes& fixed);

}  // namespace mneme
