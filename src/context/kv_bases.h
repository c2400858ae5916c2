#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "context/feature_map.h"
#include "context/kv_layer.h"

namespace mneme {

/// Features of a layer's keys and of its values, all kv heads together.
struct KvRanks {
  size_t keys = 0, values = 0;
  bool operator==(const KvRanks&) const = default;
};

/// For each layer of a model the directions in which its keys (before RoPE) and its values are kept, fitted to a text
/// (CSKV, arXiv 2409.10593). See SecondMoments for the closed form: with x the input of a layer and k = x W, the
/// projection A = W B^T of the paper's z = x A is not needed, since z = x W B^T = k B^T.
struct KvBases {
  struct Layer {
    FeatureMap keys, values;                    ///< Rank 0 of both: no features, keys and values stay as they are.
    std::vector<float> key_basis, value_basis;  ///< [rank, channels].
    double key_error = 0, value_error = 0;      ///< ||X - X B^T B|| / ||X|| on the text.

    KvRanks ranks() const { return {keys.rank, values.rank}; }
  };
  std::vector<Layer> layers;

  /// Tells bases apart: what is stored under one cannot be read under another.
  uint64_t identity() const;
  /// A file: magic, version (u32), number of layers (u32), per layer four sizes (u32), two errors (f64) and the bases
  /// (f32), and a checksum. Throws Error(kIo).
  void save(const std::string& path) const;
  /// Throws Error(kIo, kCorruptData, kNotFound).
  static std::shared_ptr<const KvBases> load(const std::string& path);
  /// The bytes of such a file; `name` stands in messages. Throws Error(kCorruptData).
  static std::shared_ptr<const KvBases> parse(std::span<const std::byte> bytes, const std::string& name);
};

/// Second moments of the keys and values that pass through stores, by layer.
struct KvMoments {
  struct Layer {
    std::unique_ptr<SecondMoments> keys, values;

    /// The bases of given ranks that lose least. Throws Error(kInvalidArgument) when nothing was collected, or a row
    /// was not finite.
    KvBases::Layer fit(const KvRanks& ranks) const;
  };
  std::vector<Layer> layers;
};

/// `inner`, whose new keys and values are added to a layer's moments. They are made when the first come.
std::unique_ptr<KvLayer> collect_moments(std::unique_ptr<KvLayer> inner, const KvShape& shape, KvMoments& moments,
                                         size_t layer);

}  // namespace mneme
