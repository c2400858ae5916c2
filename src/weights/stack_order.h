#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

/// The one order in which the blocks of all matrices of a model are stored, loaded and, from its end, given back
/// (BitStack, arXiv 2410.23918). All first blocks come first; a block comes after those of its matrix below it.
///
///     average   level by level, inside a level by what a block gains: stacks never differ by more than one block
///     greedy    by what the next block of each matrix gains a byte, whatever the levels
///     random    level by level, shuffled
///
/// What a block gains is either measured on the model (loss with every matrix at level b, less the loss with this one
/// at b + 1), or taken from the decomposition: by how much the relative squared error of the matrix's outputs falls.
namespace mneme::bitstack {

enum class StackOrder : uint8_t { kAverage, kGreedy, kRandom };
std::optional<StackOrder> find_stack_order(std::string_view name);

/// Block `level` (from 0) of matrix `matrix`.
struct BlockId {
  uint32_t matrix = 0, level = 0;
  bool operator==(const BlockId&) const = default;
};

/// What the order needs to know of a matrix.
struct StackedGains {
  uint64_t block_bytes = 0;
  std::vector<double> gains;  ///< Of block 0, 1, ...: one a block. That of block 0 is not looked at.
};

/// All blocks in order. A gain that is not a number comes after the others of its level, by the next level's gain.
std::vector<BlockId> order_blocks(StackOrder order, std::span<const StackedGains> matrices, uint64_t seed);

}  // namespace mneme::bitstack
