#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "context/kv_bases.h"
#include "engine/engine.h"

/// How many features each layer's keys and values get when the ranks are measured (`cskv:ranks=measured`; arXiv
/// 2409.10593 has one density for all). What is shared out are the bytes that equal ranks would take.
namespace mneme {

/// What keeping the keys or the values of one layer in fewer features costs, everything else whole.
struct RankCurve {
  std::vector<size_t> ranks;   ///< Rising.
  std::vector<double> losses;  ///< Mean KL divergence from f16 in nats a token, one a rank.

  /// Loss at any rank from the first to the last: between two that were measured it falls by the same factor with each
  /// feature, and a rank counts as no worse than any smaller one.
  double at(size_t rank) const;
};

/// The curves of a model, by layer; none for a layer that has no features (no keys and values, or a sliding window).
struct RankCurves {
  struct Layer {
    RankCurve keys, values;
  };
  std::vector<Layer> layers;
};

/// Ranks at which a side of `channels` channels is measured, rising: five where there are as many. The smallest is one
/// of 32 channels, or a sixth of the density where that is less; the largest is three quarters, or half of the way from
/// the density to all channels. All of them, which lose nothing, are no measure: the smallest change anywhere costs
/// rounding that others then do not add to.
std::vector<size_t> measured_ranks(size_t channels, const KvChoices::Features& features);

/// Passes over the window that measure_ranks() makes.
uint64_t rank_passes(const Model& model);

/// Measures a policy with measured ranks on the start of `tokens`, 1024 tokens and the context at most: for each layer,
/// for its keys and its values, at five ranks, one pass of the model whose other layers are f16, and one pass in f16
/// beside them. The first quarter is not scored. `moments` are of a text that stands for what will be read. The
/// engine's budget must hold six sequences of that window. `progress` gets passes. Throws Error(kInvalidArgument) when
/// the text is so short that little of it leaves the tail in full precision; Error(kUnsupported) for a model without
/// keys and values.
RankCurves measure_ranks(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                         const KvMoments& moments, const std::function<void(uint64_t, uint64_t)>& progress);

/// Ranks by layer whose bytes together are at most those of equal ranks and whose losses together are least: a
/// knapsack (allocate_bits()) over multiples of 4 features (of more, where a layer has over 256 channels) and the equal
/// rank.
std::vector<KvRanks> choose_ranks(const Model& model, const KvPolicy& policy, const RankCurves& curves);

/// One keys' or values' part of that choice.
struct RankOption {
  size_t rank;
  uint64_t bytes;  ///< Of a block of tokens.
  double loss;
};
/// The rank of each side, one of its options each, with at most `budget` bytes and the least loss. Empty when nothing
/// fits.
std::vector<size_t> choose_ranks(std::span<const std::vector<RankOption>> sides, uint64_t budget);

/// What fitting is busy with, as for a Progress.
using FitProgress = std::function<void(const std::string& what, const char* unit, uint64_t done, uint64_t all)>;

/// The bases that a policy needs, from a text, with equal or measured ranks as it says. Throws what fit_kv_bases() and
/// measure_ranks() throw.
std::shared_ptr<const KvBases> fit_policy_bases(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                                                const FitProgress& progress);

/// Sequences that the engine for fit_policy_bases() must have room for.
uint32_t fit_sequences(const KvPolicy& policy);

}  // namespace mneme
