#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "weights/metadata.h"

namespace mneme {

/// The numbers of a model that every architecture shares, read from metadata keys `<arch>.*` and checked.
struct Hyperparameters {
  std::string architecture;
  uint32_t n_vocab = 0;         ///< Tokens of the vocabulary; the embedding matrix may have more rows.
  uint32_t n_context = 0;       ///< Tokens the model was trained on.
  uint32_t width = 0;           ///< E, embedding_length.
  uint32_t n_layers = 0;
  std::vector<uint32_t> hidden;      ///< F of each layer, feed_forward_length.
  std::vector<uint32_t> n_heads;     ///< Of each layer.
  std::vector<uint32_t> n_kv_heads;  ///< Of each layer; divides n_heads.
  uint32_t key_dim = 0, value_dim = 0;
  uint32_t n_rot = 0;           ///< Rotated dimensions of a head, even, at most key_dim.
  float norm_eps = 0;
  uint32_t window = 0;          ///< attention.sliding_window, 0: none.
  uint32_t n_experts = 0, n_experts_used = 0;

  double rope_base = 10000;
  double rope_frequency_scale = 1;  ///< 1 / scaling factor.
  bool rope_yarn = false;
  double rope_original_context = 0;
  double rope_attention_factor = 1;
};

/// Throws Error(kCorruptData) that names the key and the rule it breaks.
Hyperparameters read_hyperparameters(const Metadata& metadata);

}  // namespace mneme
