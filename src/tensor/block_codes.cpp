#include "tensor/block_codes.h"

#include <algorithm>
#include <array>

#include "tensor/codecs.h"

namespace mneme {
namespace {

constexpr std::array<BlockCodes, 7> kTable = {{
    {DType::kQ2_K, 4, 16, codecs::store_q2_k_codes},
    {DType::kQ3_K, 8, 16, codecs::store_q3_k_codes},
    {DType::kQ4_K, 16, 32, codecs::store_q4_k_codes},
    {DType::kQ5_K, 32, 32, codecs::store_q5_k_codes},
    {DType::kQ6_K, 64, 16, codecs::store_q6_k_codes},
    {DType::kIQ4_XS, 16, 32, codecs::store_iq4_xs_codes},
    {DType::kNVFP4, 16, 16, codecs::store_nvfp4_codes},
}};

}  // namespace

const BlockCodes* find_block_codes(DType dtype) {
  const auto* found = std::find_if(kTable.begin(), kTable.end(), [&](const BlockCodes& b) { return b.dtype == dtype; });
  return found == kTable.end() ? nullptr : found;
}

}  // namespace mneme
