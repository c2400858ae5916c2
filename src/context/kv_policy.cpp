#include "context/kv_policy.h"

#include "base/error.h"
#include "context/dense_kv.h"

namespace mneme {

KvPolicy KvPolicy::parse(std::string_view text) {
  KvPolicy policy;
  policy.name_ = text;
  if (text == "f16") {
    policy.dtype_ = DType::kF16;
  } else if (text == "bf16") {
    policy.dtype_ = DType::kBF16;
  } else if (text == "f32") {
    policy.dtype_ = DType::kF32;
  } else {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected one of f16, bf16, f32, found '{}'", text);
  }
  return policy;
}

StateSpec KvPolicy::spec(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch) const {
  return DenseKv::spec(shape, dtype_, max_tokens, max_batch);
}

std::unique_ptr<KvLayer> KvPolicy::make_layer(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch,
                                              Ledger& ledger) const {
  return std::make_unique<DenseKv>(shape, dtype_, max_tokens, max_batch, ledger);
}

}  // namespace mneme
