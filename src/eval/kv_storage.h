#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "context/kv_layer.h"
#include "eval/sample_statistics.h"

namespace mneme {

/// What is measured of the memory behind keys and values: contiguous addresses with pages on demand (vAttention, arXiv
/// 2405.04437; DenseKv), a block table (PagedAttention, arXiv 2309.06180; BlockTableKv), and room for the longest
/// request.
struct StorageOptions {
  KvShape shape{8, 64, 64, 0};
  uint32_t n_heads = 32;
  std::vector<uint64_t> tokens = {8192, 32768};
  std::vector<uint32_t> blocks = {16, 64};
  uint32_t chunk = 256;  ///< Tokens of one call while a prompt is read.
  uint32_t repetitions = 9;
};

/// Time of one layer's attention, appending included, behind `tokens` tokens.
struct AttentionTime {
  uint64_t tokens;
  std::string phase;  ///< "decode": one token; "prefill": a chunk of a prompt.
  SampleStatistics contiguous_ms;
  std::vector<SampleStatistics> table_ms;  ///< Of each block size.
  std::vector<double> ratio;               ///< Median of table over contiguous, call beside call.
};

/// Storages take turns in every repetition.
std::vector<AttentionTime> attention_times(const StorageOptions& options);

/// Requests of a long-tailed mix: lognormal lengths with a median of 400 tokens, 16 to `longest`.
std::vector<uint64_t> request_mix(size_t n, uint64_t longest, uint64_t seed);

/// What a model of `n_layers` layers with `token_bytes` bytes a token in each of K and V commits for requests.
struct StorageWaste {
  std::string storage;    ///< "static", "table of 16", "pages of 64 KiB", ...
  double wasted = 0;      ///< Part of the committed bytes that holds no token.
  double mean_units = 0;  ///< Wasted bytes a request, over 2 * n_layers * page: 0 to 1 for pages.
  double most_units = 0;
  uint64_t concurrent = 0;  ///< Requests of the mix that fit `budget`, one after another until one is refused.
};

struct WasteOptions {
  uint32_t n_layers = 16;
  uint64_t token_bytes = 1024, longest = 4096, budget = uint64_t{256} << 20;
  std::vector<uint64_t> pages = {uint64_t{64} << 10, uint64_t{256} << 10, uint64_t{2} << 20};
  std::vector<uint32_t> blocks = {16, 64};
  size_t n_requests = 200;
};

/// Static room first, then block tables, then pages. Pages are committed in real ranges; the other two are computed.
std::vector<StorageWaste> storage_waste(const WasteOptions& options);

}  // namespace mneme
