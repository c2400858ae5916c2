#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "context/kv_layer.h"
#include "tensor/dtype.h"

namespace mneme {

/// How keys and values are kept, as the user names it (`--kv f16`). Parsed and checked once; makes the stores.
class KvPolicy {
 public:
  /// "f32", "f16" or "bf16". Throws Error(kInvalidArgument) that lists the known names.
  static KvPolicy parse(std::string_view text);

  const std::string& name() const { return name_; }
  /// Bytes that a layer of this shape will hold, by tokens. `max_tokens` bounds the sequence, `max_batch` the tokens of one
  /// append.
  StateSpec spec(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch) const;
  std::unique_ptr<KvLayer> make_layer(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger) const;

 private:
  std::string name_;
  DType dtype_ = DType::kF16;
};

}  // namespace mneme
