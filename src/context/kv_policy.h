#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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
};

/// How keys and values are kept, as the user names it (`--kv f16`). Parsed and checked once; makes the stores.
class KvPolicy {
 public:
  /// See KvChoices. Throws Error(kInvalidArgument).
  static KvPolicy parse(std::string_view text);

  const std::string& name() const { return name_; }
  const KvChoices& choices() const { return choices_; }
  /// Bytes that a layer of this shape will hold, by tokens. `max_tokens` bounds the sequence, `max_batch` the tokens of one
  /// append.
  StateSpec spec(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch, const KvPlace& place = {}) const;
  std::unique_ptr<KvLayer> make_layer(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger,
                                      const KvPlace& place = {}) const;

  /// The roles of a model's layers, given their shapes (nothing: a layer without keys and values).
  std::vector<KvPlace::Role> roles(std::span<const std::optional<KvShape>> layers) const;

 private:
  std::string name_;
  KvChoices choices_;
};

}  // namespace mneme
