#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "budget/buffer.h"
#include "context/layer_state.h"

namespace mneme {

/// A sealed page of one layer whose memory is shared with the states that use it.
struct SharedPart {
  uint32_t layer;
  int64_t position;  ///< Index of the page.
  SharedPage pages;
};

/// What all layers keep of one page of tokens, as one piece of memory that can be moved between RAM, disk and other
/// machines as it is. Layout, little-endian:
///
///   Head, then kPageTokens i32 token ids, then n_parts Parts, then the bytes of the parts.
///
/// A block belongs to the boundary behind its page. It has the pages that were sealed since the boundary before, and,
/// if every layer could tell, the rests as of this boundary, with which a sequence can go on from here.
struct PageBlock {
  struct Head {
    uint32_t mark;
    uint32_t n_parts;
    uint64_t bytes;       ///< Of the whole block.
    uint64_t checksum;    ///< XXH3 of everything behind this field.
    uint64_t identity;    ///< Hash of model, policy and tenant.
    uint64_t token_hash;  ///< Of all tokens up to the boundary, see token_chain().
    int64_t n_tokens;     ///< The boundary.
  };
  struct Part {
    uint32_t layer;
    uint32_t is_rest;
    int64_t position;  ///< Index of the page; of a rest the end of the pages that belong to it.
    uint64_t offset, bytes;
  };
  /// Which block this is.
  struct Key {
    uint64_t identity, token_hash;
    int64_t n_tokens;
    std::span<const int32_t> tokens;  ///< [kPageTokens] of the page.
  };

  /// Writes a block of the layers' states (null for layers without one), which have seen key.n_tokens or more.
  /// `have[i]`: pages of layer i that earlier blocks hold already; counted up. With `shared`, pages that a layer can share
  /// go there and are no parts of the block. Throws Error(kOutOfBudget).
  static GrowingBuffer make(Ledger& ledger, const Key& key, std::span<LayerState* const> layers,
                            std::vector<int64_t>& have, std::vector<SharedPart>* shared = nullptr);

  /// Looks at bytes that were read from somewhere. Throws Error(kCorruptData) when they are not the block of that key
  /// as it was written.
  static void verify(std::span<const std::byte> bytes, const Key& key);
  /// The same for a buffer that was read from somewhere.
  static void verify(const GrowingBuffer& buffer, const Key& key);

  /// The block in a buffer that make() returned or that was read: without what its last page has too much.
  static std::span<const std::byte> bytes(const GrowingBuffer& buffer) {
    return {buffer.data(), head({buffer.data(), sizeof(Head)}).bytes};
  }

  // Of verified bytes.
  static Head head(std::span<const std::byte> bytes);
  static std::span<const int32_t> tokens(std::span<const std::byte> bytes);
  static std::span<const Part> parts(std::span<const std::byte> bytes);
  static bool has_rests(std::span<const std::byte> bytes);
  static std::span<const std::byte> content(std::span<const std::byte> bytes, const Part& part);
};

/// A block in RAM: whole, or beside it the pages that are shared with states.
struct CachedBlock {
  std::shared_ptr<const GrowingBuffer> block;
  std::vector<SharedPart> shared;

  std::span<const std::byte> bytes() const { return PageBlock::bytes(*block); }
  /// What it takes, shared or not.
  uint64_t committed() const { return block->committed() + shared_bytes(); }
  uint64_t shared_bytes() const;
  /// Whether states use some of it now: its end would not free all of committed().
  bool in_use() const;
};

/// Loads empty states from the blocks of a sequence's pages 0, 1, ..., of which the last has rests. Throws Error as
/// LayerState::load_page(), load_shared_page() and load_rest() do.
void load_page_blocks(std::span<const std::shared_ptr<const CachedBlock>> blocks, std::span<LayerState* const> layers);

}  // namespace mneme
