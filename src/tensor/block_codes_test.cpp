#include "tensor/block_codes.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/philox.h"

namespace mneme {
namespace {

/// Levels are those of blocks in which one element has the code; with codes that give the same values the block must
/// be the same bytes again.
TEST(BlockCodes, RebuildABlockFromTheCodesOfItsValues) {
  size_t n_types = 0;
  for (const DTypeInfo& info : all_dtypes()) {
    const BlockCodes* codes = find_block_codes(info.dtype);
    if (codes == nullptr) continue;
    ++n_types;
    const size_t block = info.block_elements;
    ASSERT_EQ(block % codes->group, 0u);
    PhiloxStream random(7);
    std::vector<float> in(block), values(block), levels(block);
    for (float& x : in) x = random.next_normal();
    std::vector<std::byte> stored(info.block_bytes);
    info.encode(in.data(), nullptr, stored.data(), block);
    info.decode(stored.data(), values.data(), block);

    std::vector<uint8_t> found(block, 255), same(block);
    std::vector<std::byte> work = stored;
    for (size_t c = codes->count; c-- > 0;) {
      std::fill(same.begin(), same.end(), static_cast<uint8_t>(c));
      codes->store(same.data(), work.data());
      info.decode(work.data(), levels.data(), block);
      for (size_t j = 0; j < block; ++j) {
        EXPECT_EQ(levels[j], levels[j - j % codes->group]) << info.name << ": elements of a group differ in levels";
        if (levels[j] == values[j]) found[j] = static_cast<uint8_t>(c);
      }
    }
    for (uint8_t c : found) ASSERT_LT(c, codes->count) << info.name << ": a value has no code";
    codes->store(found.data(), work.data());
    EXPECT_EQ(work, stored) << info.name;
  }
  EXPECT_EQ(n_types, 7u);
}

}  // namespace
}  // namespace mneme
