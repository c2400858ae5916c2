#pragma once

#include <functional>
#include <string>
#include <vector>

#include "recall/kept/vector_search.h"
#include "recall/search/filter.h"
#include "recall/search/search_weights.h"
#include "recall/store.h"

namespace mneme::recall {

/// Counts the tokens of a text for a budget.
using TokenCounter = std::function<uint64_t(std::string_view)>;
/// An upper estimate for English without a vocabulary: a token for each three bytes and each word at least.
uint64_t estimate_tokens(std::string_view text);

struct Query {
  std::string text;  ///< Any text; nothing in it is syntax. Empty: the newest records.
  Scope scope = {};  ///< Tenant and user are the key; agent and session narrow when not empty.
  Filter filter = {};
  size_t k = 10;                              ///< Most results.
  std::optional<uint64_t> token_budget = {};  ///< Most tokens of all results together.
  TokenCounter count_tokens = {};             ///< Default: estimate_tokens().
  double diversity = 0.3;                     ///< 0: by score alone; 1: by difference alone.
  SearchWeights weights = {};
  std::optional<Time> as_of = {};  ///< Search the state of the store at a past time (words and names only).
  std::vector<float> vector = {};  ///< In place of the embedder's; empty: its.
};

struct Hit {
  Record record;
  double score = 0;
  uint64_t tokens = 0;
  Candidate why;  ///< Ranks and raw scores of the channels.
};

struct SearchResult {
  std::vector<Hit> hits;     ///< In the order in which they were chosen.
  uint64_t tokens = 0;       ///< Of all hits.
  size_t n_candidates = 0;   ///< Records that some channel found.
  size_t n_over_budget = 0;  ///< Passed over because the rest of the token budget was smaller.
  double ms = 0;             ///< Time it took.
  VectorSearchCost vectors;  ///< `way` is empty when vectors were not searched.
};

/// Hybrid search in one user's memory: BM25 over words with the context of each record (context_score.h), cosine of
/// embeddings (with an embedder or `vector`), names, and neighbours of the best hits by links; their scores are added with
/// weights (ranking.h), filtered, made diverse, cut to the budget. Results are the same on all databases. Throws Error.
SearchResult search(Store& store, const Query& query);

}  // namespace mneme::recall
