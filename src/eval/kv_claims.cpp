#include "eval/kv_claims.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>

#include "context/kv_example.h"
#include "context/kv_policy.h"
#include "context/feature_map.h"

namespace mneme {
namespace {

constexpr const char* kOutliers = "1024 generated tokens of one head of 128 channels, 6 of them large; error of attention against f16";

/// Error of attention under a policy on keys with outlier channels.
double outlier_error(std::string_view policy) {
  const KvExample example = outlier_example(1024);
  Ledger ledger;
  const auto store = KvPolicy::parse(policy).make_layer(example.shape, 1024, 64, ledger);
  const auto plain = KvPolicy::parse("f16").make_layer(example.shape, 1024, 64, ledger);
  return relative_difference(example.run(*store, {64}), example.run(*plain, {64}));
}

/// Claim that `worse` has at least `target` times the error of `better`.
std::function<ClaimMeasurement()> error_ratio(std::string worse, std::string better) {
  return [=] { return ClaimMeasurement{outlier_error(worse) / outlier_error(better), worse + " over " + better + "; " + kOutliers}; };
}

/// Bytes of a whole model's sequence: 32 layers of 8 heads of 128.
double model_bytes(std::string_view policy, uint64_t tokens) {
  const KvPolicy parsed = KvPolicy::parse(policy);
  const std::vector<std::optional<KvShape>> layers(32, KvShape{8, 128, 128, 0});
  const std::vector<KvPlace::Role> roles = parsed.roles(layers);
  double sum = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    sum += static_cast<double>(parsed.spec(*layers[i], tokens, 64, {roles[i]}).bytes(tokens));
  }
  return sum;
}

std::function<ClaimMeasurement()> bytes_ratio(std::string larger, std::string smaller, uint64_t tokens) {
  return [=] {
    return ClaimMeasurement{model_bytes(larger, tokens) / model_bytes(smaller, tokens),
                            fmt::format("{} over {}; 32 layers, 8 heads of 128, {} tokens", larger, smaller, tokens)};
  };
}

std::vector<Claim> compression_claims() {
  return {
      {"kivi", "arXiv 2402.02750", "Keys want groups per channel: per-token groups of 2 bits lose much more", "times the error",
       "CoQA 52.9 per token, 63.5 per channel, 66.4 in 16 bits", 2, false, error_ratio("token:2", "kivi:2")},
      {"kivi", "arXiv 2402.02750", "Two bits shrink the cache", "times smaller", "up to 4x larger batches", 4.5, false,
       bytes_ratio("f16", "kivi:2", 4096)},
      {"bfp-kv", "arXiv 2403.20137", "Sorting the key channels helps block floating point of 4 bits in blocks of 32",
       "times the error", "perplexity close to fp16 only when sorted", 1.25, false, error_ratio("bfp:4,sort=off", "bfp:4")},
      {"bfp-kv", "arXiv 2403.20137", "Four bits of mantissa halve the cache of eight", "times smaller", "2x", 1.85, false,
       bytes_ratio("bfp:8", "bfp:4", 65536)},
      {"mikv", "arXiv 2402.18096", "Tokens that eviction would drop are worth keeping in two bits", "times the error",
       "line retrieval 4 % with eviction at 20 %, near full with MiKV", 1.3, false, error_ratio("h2o:0.2", "mikv:keep=0.2,lo=2")},
      {"mikv", "arXiv 2402.18096", "Tokens that eviction would drop are worth keeping in four bits", "times the error",
       "the same", 1.3, false, error_ratio("h2o:0.2", "mikv:keep=0.2,lo=4")},
      {"mikv", "arXiv 2402.18096", "The channel balance protects low bits from outlier channels", "times the error",
       "needed for two bits", 1.1, false, error_ratio("mikv:lo=2,balance=off", "mikv:lo=2")},
      {"mikv", "arXiv 2402.18096", "A fifth of the tokens in 16 bits and the rest in two take a third of the cache", "times smaller",
       "33 % of fp16", 3, false, bytes_ratio("f16", "mikv:keep=0.2,hi=16,lo=2", 65536)},
      {"think", "arXiv 2407.21018", "Half of the key channels dropped on top of four bits saves a third more", "times smaller",
       "20 % on top of KIVI with 40 % of the channels", 1.2, false, bytes_ratio("kivi:4", "think:0.5+kivi:4", 65536)},
      {"minicache", "arXiv 2405.14366", "Merging the upper half of the layers in pairs", "times smaller",
       "1.29x by its formula", 1.25, false, bytes_ratio("f16", "minicache", 65536)},
      {"minicache", "arXiv 2405.14366", "With four bits", "times smaller", "5.02x with about 70 % of the layers merged", 3.8, false,
       bytes_ratio("f16", "minicache+kivi:4", 65536)},
  };
}

constexpr const char* kHidden = "generated hidden states, 256 key channels, rank 40 (15.6 %)";

/// Share of the energy of keys [first, first + n) that the best basis of rank 40 for keys [0, fitted) of `basis_of` leaves out.
double low_rank_error(const std::vector<float>& basis_of, size_t fitted, const std::vector<float>& keys, size_t first, size_t n) {
  constexpr size_t kChannels = 256, kRank = 40;
  SecondMoments fit(kChannels), measured(kChannels);
  fit.add(basis_of.data(), fitted);
  measured.add(keys.data() + first * kChannels, n);
  std::vector<float> basis(kRank * kChannels);
  fit.basis(kRank, basis.data());
  return measured.error_of(basis.data(), kRank);
}

KvExample hidden_states(uint64_t seed) { return hidden_state_example({2, 128, 128, 0}, 2, 2048, seed, 0.9f); }

/// Error of 40 generated tokens that look for one token each, after 2008 given ones, against f16.
double generated_error(std::string_view policy, bool for_odd) {
  constexpr size_t kTokens = 2048, kGenerated = 40, kGiven = kTokens - kGenerated;
  KvExample example = OddTokensExample(kTokens, for_odd).example;
  Ledger ledger;
  const auto store = KvPolicy::parse(policy).make_layer(example.shape, kTokens, 512, ledger);
  const auto plain = KvPolicy::parse("f16").make_layer(example.shape, kTokens, 512, ledger);
  for (size_t first = 0; first < kGiven; first += kGiven / 4) {
    example.feed(*store, first, kGiven / 4);
    example.feed(*plain, first, kGiven / 4);
  }
  example.role = TokenRole::kGenerated;
  return relative_difference(example.feed(*store, kGiven, kGenerated), example.feed(*plain, kGiven, kGenerated));
}

std::vector<Claim> shadow_claims() {
  const auto bytes = [] {
    const std::string policy = "shadowkv:budget=1024,values=disk";
    return ClaimMeasurement{model_bytes("f16", 65536) / model_bytes(policy, 65536),
                            policy + ", memory alone; 32 layers, 8 heads of 128, 65536 tokens"};
  };
  return {
      {"shadowkv", "arXiv 2410.21465", "Keys have far fewer directions before RoPE than after", "times the error",
       "the lowest rank of all that was looked at", 2, false,
       [] {
         const KvExample e = hidden_states(1);
         const auto rotated = e.rotated_keys();
         return ClaimMeasurement{low_rank_error(rotated, 1024, rotated, 0, 1024) / low_rank_error(e.k, 1024, e.k, 0, 1024), kHidden};
       }},
      {"shadowkv", "arXiv 2410.21465", "A text that goes on stays in the subspace of its beginning", "times the error",
       "sequence and continuation share it", 1.5, true,
       [] {
         const KvExample e = hidden_states(1);
         return ClaimMeasurement{low_rank_error(e.k, 1024, e.k, 1024, 256) / low_rank_error(e.k, 1024, e.k, 0, 1024), kHidden};
       }},
      {"shadowkv", "arXiv 2410.21465", "Outlier chunks save what landmarks miss", "times the error", "0.2 to 0.3 % of the chunks suffice",
       3, false,
       [] {
         const std::string with = "shadowkv:rank=64,budget=240,outliers=102", without = "shadowkv:rank=64,budget=240,outliers=0";
         return ClaimMeasurement{generated_error(without, true) / generated_error(with, true),
                                 without + " over " + with + "; 20 odd tokens of 2048 are looked for"};
       }},
      {"shadowkv", "arXiv 2410.21465", "The fast tier shrinks more than sixfold", "times smaller", "6x", 6, false, bytes},
  };
}

}  // namespace

std::vector<Claim> kv_claims() {
  std::vector<Claim> claims = compression_claims();
  for (Claim& claim : shadow_claims()) claims.push_back(std::move(claim));
  return claims;
}

}  // namespace mneme
