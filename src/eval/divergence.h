#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace mneme {

struct DivergenceOptions {
  uint32_t window = 512;      ///< Tokens of one independent window.
  uint64_t max_windows = 0;   ///< 0: all.
  uint32_t first_scored = 0;  ///< Tokens of a window that are only read; 0: half the window.
};

/// How a model in another form answers compared with the original, on the same text.
struct Divergence {
  double reference_perplexity = 0, perplexity = 0;
  double kl = 0;        ///< Mean of KL(reference || model) over the next-token distributions, nats.
  double same_top = 0;  ///< Share of positions where both have the same most likely token.
  uint64_t n_scored = 0;
  bool identical = true;  ///< All logits equal to the bit.
};

/// Logits [rows, n_vocab] that predict tokens first, first + stride, ... of one window, which starts with an empty
/// context (and with BOS in place of its first token, if the model wants one).
std::vector<float> window_logits(Engine& engine, std::span<const TokenId> window, size_t first, size_t stride = 1);

/// The same of any other form of a model: logits [window - first, n_vocab] of a window that begins as the model wants.
using WindowLogits = std::function<std::vector<float>(std::span<const TokenId> window, size_t first)>;

/// Runs the reference and another form of it over the text. Throws Error(kInvalidArgument) when not one window fits.
Divergence divergence(Engine& reference, const WindowLogits& other, std::span<const TokenId> tokens,
                      const DivergenceOptions& options,
                      const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

/// Runs both models over the text. Throws Error(kInvalidArgument) when the vocabularies differ in size or not one
/// window fits.
Divergence divergence(Engine& reference, Engine& model, std::span<const TokenId> tokens,
                      const DivergenceOptions& options,
                      const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

}  // namespace mneme
