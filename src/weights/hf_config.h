#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "weights/metadata.h"

namespace mneme {

/// A small F32 tensor that GGUF files carry and Hugging Face checkpoints describe in config.json.
struct GeneratedTensor {
  std::string name;
  std::vector<float> values;
};

/// What config.json says, under GGUF names.
struct HfConfig {
  std::string architecture;  ///< GGUF name: "llama", "qwen3moe", "nomic-bert".
  Metadata metadata;
  uint64_t n_heads = 0, n_kv_heads = 0, n_experts = 0, n_vocab = 0;
  bool tied_output = false;  ///< The token table is also the output matrix.
  /// Rotation divisors: rope_freqs.weight of llama3 scaling, or rope_factors_short and _long.
  std::vector<GeneratedTensor> generated;
};

/// Maps config.json. `source` names the file in messages. Throws Error(kUnsupported) for an architecture or a setting
/// that the architectures of mneme do not have (another activation, an unknown rope scaling ...) and
/// Error(kCorruptData) for missing or wrong values; both name the key.
HfConfig read_hf_config(const SortedJson& config, const std::string& source);

}  // namespace mneme
