#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "context/kv_bases.h"
#include "context/kv_choices.h"
#include "context/kv_layer.h"

namespace mneme {

class MergedPair;

/// Where a layer stands among its neighbours, for policies that merge two.
struct KvPlace {
  enum class Role : uint8_t { kAlone, kLower, kUpper };
  Role role = Role::kAlone;
  /// What the lower layer makes and the upper one joins.
  std::shared_ptr<MergedPair>* pair = nullptr;
  size_t layer = 0;  ///< Number of the layer in the model.
};

/// How keys and values are kept, as the user names it (`--kv f16`). Parsed and checked once; makes the stores.
class KvPolicy {
 public:
  /// See KvChoices. Throws Error(kInvalidArgument).
  static KvPolicy parse(std::string_view text);

  /// Plain stores whose keys and values are added to `moments`, which has a place for each layer of the model.
  static KvPolicy collecting(std::shared_ptr<KvMoments> moments);

  /// As the user names it; with bases, their number behind a '#': states of equal names may be exchanged.
  const std::string& name() const { return name_; }
  /// True when stores can only be made after set_bases(). Bytes are known before: those of ranks that are equal in all
  /// layers. Once there are bases, bytes are those of their ranks. Bases that do not fit a layer are refused by spec()
  /// and make_layer() with Error(kInvalidArgument).
  bool needs_bases() const { return choices_.features.has_value(); }
  void set_bases(std::shared_ptr<const KvBases> bases);
  const KvBases* bases() const { return bases_.get(); }
  /// The bases of equal ranks for a layer of this shape, from what was collected of it.
  KvBases::Layer fit(const KvShape& shape, const KvMoments::Layer& moments) const;
  const KvChoices& choices() const { return choices_; }
  /// Bytes that a layer of this shape will hold, by tokens. `max_tokens` bounds the sequence, `max_batch` the tokens of one
  /// append.
  StateSpec spec(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch, const KvPlace& place = {}) const;
  /// Working memory beside the state that such a layer may take during a call.
  uint64_t working_bytes(const KvShape& shape, uint64_t max_tokens) const;
  /// Bytes on the disk of this machine that such a layer will hold at n_tokens tokens.
  uint64_t disk_bytes(const KvShape& shape, uint64_t n_tokens) const;
  std::unique_ptr<KvLayer> make_layer(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger,
                                      const KvPlace& place = {}) const;

  /// The roles of a model's layers, given their shapes (nothing: a layer without keys and values).
  std::vector<KvPlace::Role> roles(std::span<const std::optional<KvShape>> layers) const;

 private:
  /// Whether such a layer keeps features.
  bool has_features(const KvShape& shape, const KvPlace& place) const;

  std::string name_;
  KvChoices choices_;
  std::shared_ptr<const KvBases> bases_;
  std::shared_ptr<KvMoments> moments_;
};

}  // namespace mneme
