#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace mneme {

struct KvQualityOptions {
  uint32_t window = 2048;       ///< Tokens of one independent window.
  uint32_t first_scored = 256;  ///< Tokens of a window that are only read.
  uint64_t max_windows = 4;
};

/// How far the model is from itself when its keys and values are kept another way, over the scored tokens of a text.
struct KvQuality {
  std::string policy;
  uint64_t bytes = 0;            ///< Of one sequence at the end of a window.
  uint64_t plain_bytes = 0;      ///< The same in f16.
  double perplexity = 0;
  double plain_perplexity = 0;   ///< With f16.
  FetchCounts fetches;       ///< Of policies with a slow tier, all windows together.
  double divergence = 0;         ///< Mean KL divergence from the distribution with f16, in nats a token.
  double same_choice = 0;        ///< Share of tokens whose most probable successor is that of f16.
  uint64_t n_scored = 0;
};

/// Measures policies against f16 on the same tokens. The engine's budget must hold three sequences of a window. Throws
/// Error(kInvalidArgument) when the text is shorter than one window.
std::vector<KvQuality> measure_kv_quality(Engine& engine, std::span<const TokenId> tokens, std::span<const KvPolicy> policies,
                                          const KvQualityOptions& options,
                                          const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

/// KL(p || q) in nats of the softmaxes of two rows of logits.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

}  // namespace mneme
