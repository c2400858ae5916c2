#include "eval/kv_ranks.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "context/cskv_kv.h"
#include "engine/kv_fit.h"
#include "eval/kv_quality.h"
#include "kernels/coded_attention.h"
#include "weights/bit_allocation.h"

namespace mneme {
namespace {

constexpr size_t kWindow = 1024, kPoints = 5;
/// Features of a step from one possible rank to the next, and steps to all channels at most.
constexpr size_t kRankStep = 4, kMostSteps = 64;
/// Parts of the budget that the knapsack tells apart at most.
constexpr uint64_t kMostParts = 1u << 17;

/// Shape of a layer that keeps features.
std::optional<KvShape> shape_of(const Model& model, size_t layer) {
  const std::optional<KvShape> shape = model.blocks[layer].mixer->kv_shape();
  return shape && shape->window == 0 ? shape : std::nullopt;
}

/// Directions of a layer in order of energy, cut to any rank.
struct Directions {
  size_t channels;
  std::vector<float> rows, whole;

  Directions(const SecondMoments& moments, size_t most) : channels(moments.channels()), rows(most * channels) {
    moments.basis(most, rows.data());
    whole.resize(channels * channels);
    moments.basis(channels, whole.data());
  }
  void cut(size_t rank, FeatureMap& map, std::vector<float>& basis) const {
    map = {channels, rank};
    const std::vector<float>& from = rank < channels ? rows : whole;
    basis.assign(from.begin(), from.begin() + static_cast<long>(rank * channels));
  }
};

/// Bases of one layer alone.
KvPolicy alone(const KvPolicy& policy, size_t n_layers, size_t layer, const Directions& keys, size_t key_rank,
               const Directions& values, size_t value_rank) {
  auto bases = std::make_shared<KvBases>();
  bases->layers.resize(n_layers);
  KvBases::Layer& of = bases->layers[layer];
  keys.cut(key_rank, of.keys, of.key_basis);
  values.cut(value_rank, of.values, of.value_basis);
  KvPolicy out = policy;
  out.set_bases(std::move(bases));
  return out;
}

/// Ranks that a side may get: from the smallest measured one to the largest, and the equal one, which lies between.
std::vector<size_t> possible_ranks(const RankCurve& curve, size_t equal) {
  const size_t most = curve.ranks.back();
  const size_t step = kRankStep * std::max<size_t>(1, div_up(most, kRankStep * kMostSteps));
  std::vector<size_t> ranks = {equal, most};
  for (size_t rank = round_up(curve.ranks.front(), step); rank < most; rank += step) ranks.push_back(rank);
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

}  // namespace

double RankCurve::at(size_t rank) const {
  // From the right, so that noise does not make a larger rank worse than a smaller one.
  double right = losses.back();
  size_t right_rank = ranks.back();
  for (size_t i = ranks.size() - 1; i-- > 0;) {
    const double left = std::max(losses[i], right);
    if (rank >= ranks[i]) {
      const double along =
          static_cast<double>(std::min(rank, right_rank) - ranks[i]) / static_cast<double>(right_rank - ranks[i]);
      return right > 0 ? left * std::pow(right / left, along) : left + along * (right - left);
    }
    right = left;
    right_rank = ranks[i];
  }
  return right;
}

std::vector<size_t> measured_ranks(size_t channels, const KvChoices::Features& features) {
  const double least = std::min(1.0 / 32, static_cast<double>(std::min(features.keys, features.values)) / 6);
  const double most = std::max(0.75, (1 + static_cast<double>(std::max(features.keys, features.values))) / 2);
  std::vector<size_t> ranks;
  for (const double share : {least, 3 * least, 6 * least, 12 * least, most}) {
    const auto rank = static_cast<size_t>(std::lround(share * static_cast<double>(channels)));
    if (rank >= 1 && (ranks.empty() || rank > ranks.back())) ranks.push_back(rank);
  }
  return ranks;
}

uint64_t rank_passes(const Model& model) {
  uint64_t layers = 0;
  for (size_t i = 0; i < model.blocks.size(); ++i) layers += shape_of(model, i) ? 1 : 0;
  return layers * 2 * (kPoints + 1);
}

RankCurves measure_ranks(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                         const KvMoments& moments, const std::function<void(uint64_t, uint64_t)>& progress) {
  const Model& model = engine.model();
  const KvChoices& choices = policy.choices();
  KvQualityOptions options;
  options.window = static_cast<uint32_t>(std::min({kWindow, size_t{engine.plan().context}, tokens.size()}));
  options.first_scored = options.window / 4;
  options.max_windows = 1;
  const size_t least = 4 * (size_t{choices.residual} + kernels::kBlockTokens);
  if (options.window < least) {
    fail(
        ErrorCode::kInvalidArgument,
        "[measure ranks] expected {} tokens or more of text and context, up to {}, so that features of most tokens are "
        "seen behind a tail of {}, found {}; give more text (--kv-text), a smaller residual, or ranks=equal",
        least, kWindow, choices.residual, options.window);
  }
  const uint64_t passes = rank_passes(model);
  uint64_t done = 0;
  RankCurves curves;
  curves.layers.resize(model.blocks.size());
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    if (!shape_of(model, i)) continue;
    const KvMoments::Layer& of = moments.layers[i];
    if (!of.keys || !of.values)
      fail(ErrorCode::kInvalidArgument, "[measure ranks] expected keys and values, found none");
    const size_t n_keys = of.keys->channels(), n_values = of.values->channels();
    RankCurve& key_curve = curves.layers[i].keys;
    RankCurve& value_curve = curves.layers[i].values;
    key_curve.ranks = measured_ranks(n_keys, *choices.features);
    value_curve.ranks = measured_ranks(n_values, *choices.features);
    const Directions keys(*of.keys, key_curve.ranks.back()), values(*of.values, value_curve.ranks.back());
    const auto measure = [&](RankCurve& curve, auto&& ranks_at) {
      std::vector<KvPolicy> policies;
      for (const size_t rank : curve.ranks) {
        const KvRanks ranks = ranks_at(rank);
        policies.push_back(alone(policy, model.blocks.size(), i, keys, ranks.keys, values, ranks.values));
      }
      for (const KvQuality& q : measure_kv_quality(engine, tokens, policies, options, [](uint64_t, uint64_t) {})) {
        curve.losses.push_back(q.divergence);
      }
      progress(done += kPoints + 1, passes);
    };
    measure(key_curve, [&](size_t rank) { return KvRanks{rank, n_values}; });
    measure(value_curve, [&](size_t rank) { return KvRanks{n_keys, rank}; });
  }
  return curves;
}

std::vector<size_t> choose_ranks(std::span<const std::vector<RankOption>> sides, uint64_t budget) {
  // In units of what all differences of bytes have in common, parts of the budget are exact.
  uint64_t unit = 0;
  for (const auto& options : sides) {
    for (const RankOption& option : options) unit = std::gcd(unit, option.bytes);
  }
  unit = std::max<uint64_t>(1, unit);
  std::vector<std::vector<TypeChoice>> choices(sides.size());
  for (size_t i = 0; i < sides.size(); ++i) {
    for (const RankOption& option : sides[i]) choices[i].push_back({option.bytes / unit, option.loss});
  }
  const uint64_t units = budget / unit;
  std::vector<size_t> taken = allocate_bits(choices, units, std::min<uint64_t>(units, kMostParts));
  for (size_t i = 0; i < taken.size(); ++i) taken[i] = sides[i][taken[i]].rank;
  return taken;
}

std::vector<KvRanks> choose_ranks(const Model& model, const KvPolicy& policy, const RankCurves& curves) {
  const KvChoices& choices = policy.choices();
  std::vector<std::vector<RankOption>> sides;  // of each layer with features, keys, then values
  uint64_t budget = 0;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    const std::optional<KvShape> shape = shape_of(model, i);
    if (!shape) continue;
    const KvRanks equal = CskvKv::equal_ranks(*shape, choices);
    const auto add = [&](const RankCurve& curve, size_t equal_rank, auto&& bytes_of) {
      std::vector<RankOption>& options = sides.emplace_back();
      for (const size_t rank : possible_ranks(curve, equal_rank)) {
        options.push_back({rank, bytes_of(choices, rank), curve.at(rank)});
      }
      budget += bytes_of(choices, equal_rank);
    };
    add(curves.layers[i].keys, equal.keys, CskvKv::key_block_bytes);
    add(curves.layers[i].values, equal.values, CskvKv::value_block_bytes);
  }
  const std::vector<size_t> chosen = choose_ranks(sides, budget);
  std::vector<KvRanks> ranks(model.blocks.size());
  size_t side = 0;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    if (!shape_of(model, i)) continue;
    ranks[i] = {chosen[side], chosen[side + 1]};
    side += 2;
  }
  return ranks;
}

std::shared_ptr<const KvBases> fit_policy_bases(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                                                const FitProgress& progress) {
  const auto moments = collect_kv_moments(engine, tokens, [&](uint64_t done, uint64_t all) {
    progress("fitting bases of keys and values", "tokens", done, all);
  });
  if (!policy.choices().features->measured) return fit_kv_bases(engine.model(), *moments, policy);
  const RankCurves curves = measure_ranks(engine, tokens, policy, *moments, [&](uint64_t done, uint64_t all) {
    progress("measuring ranks of keys and values", "passes", done, all);
  });
  const std::vector<KvRanks> ranks = choose_ranks(engine.model(), policy, curves);
  return fit_kv_bases(engine.model(), *moments, policy, ranks);
}

uint32_t fit_sequences(const KvPolicy& policy) {
  return policy.choices().features->measured ? kPoints + 1 : 1;
}

}  // namespace mneme
