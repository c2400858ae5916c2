#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "recall/sql/database.h"

namespace mneme::recall {

/// What makes a record a candidate.
enum class Channel : uint8_t { kText, kVector, kEntity, kLink };
constexpr size_t kChannels = 4;
constexpr std::array<std::string_view, kChannels> kChannelNames = {"text", "vector", "entity", "link"};

/// BM25 (Robertson and others, TREC-3, 1994) of records that hold some of the asked terms:
///
///   score(d) = sum over terms t of idf(t) * c (k1 + 1) / (c + k1 (1 - b + b |d| / mean)),
///   idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5)),
///
/// c the count of t in d, |d| terms of d, N records of this user, n(t) of them with t; k1 = 1.2, b = 0.75. All numbers are
/// the user's own, so what others store changes neither ranks nor scores.
/// `matches` are all records of the user with one of the terms; `lengths` their terms.
std::vector<double> bm25(std::span<const TermMatch> matches, std::span<const int64_t> lengths, int64_t n_records,
                         double mean_length);

/// How channels and properties of a record make one score:
///
///   score = (sum over channels c of weight_c s_c / max_c) (1 + recency 0.5^(age / half_life))
///           (1 + importance (i - 0.5)) confidence^confidence_power
///
/// s_c is what channel c says of the record, at least 0, and max_c the most that it says of any candidate; a channel that
/// did not find the record adds nothing. A weighted sum of normalised scores keeps what ranks lose, how far apart two are:
/// Bruch and others, "An Analysis of Fusion Functions for Hybrid Retrieval", arXiv 2210.11934. The weights can be learned
/// from examples: learn_weights.h.
struct FusionWeights {
  std::array<double, kChannels> channel = {1, 0.1, 0.1, 0.1};
  double recency = 0.1, half_life_days = 30;
  double importance = 0.5;
  double confidence_power = 1;
};

/// What is known of a candidate. Ranks count from 1, 0: not found by that channel.
struct Candidate {
  int64_t record = 0;
  std::array<uint32_t, kChannels> rank{};
  std::array<double, kChannels> raw{};  ///< BM25 with context, cosine, entity BM25, score of the neighbour.
  std::array<double, kChannels> share{};  ///< The same over the greatest of any candidate, in [0, 1].
  double age_days = 0, importance = 0.5, confidence = 1;
  double score = 0;
};

double fused_score(const Candidate& candidate, const FusionWeights& weights);

/// Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): the order in which candidates are chosen, each time
/// the one with the greatest lambda * relevance - (1 - lambda) * (greatest similarity to those chosen before). `relevance`
/// is scaled to [0, 1] inside; similarity(i, j) is in [0, 1]. At most `n` indexes.
std::vector<size_t> diverse_order(std::span<const double> relevance, double lambda, size_t n,
                                  FunctionRef<double(size_t, size_t)> similarity);

}  // namespace mneme::recall
