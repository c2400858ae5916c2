#include "context/page_block.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme {
namespace {

constexpr uint32_t kMark = 0x504d4e4d;  // "MNMP"
constexpr size_t kUnchecked = offsetof(PageBlock::Head, identity);
constexpr size_t kTokensOffset = sizeof(PageBlock::Head);
constexpr size_t kPartsOffset = kTokensOffset + kPageTokens * sizeof(int32_t);
constexpr size_t kAlignment = 64;
constexpr uint32_t kMostLayers = 1u << 16;

uint64_t checksum_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data() + kUnchecked, bytes.size() - kUnchecked);
}

size_t rest_bytes(const LayerState& layer, int64_t n_tokens, bool* possible) {
  CountingWriter size;
  *possible &= layer.save_rest(n_tokens, size);
  return size.bytes();
}

}  // namespace

GrowingBuffer PageBlock::make(Ledger& ledger, const Key& key, std::span<LayerState* const> layers,
                              std::vector<int64_t>& have, std::vector<SharedPart>* shared) {
  std::vector<Part> parts;
  bool rests = true;
  const auto end_of = [&](const LayerState& layer) {
    return layer.n_tokens() == key.n_tokens ? layer.sealed_pages().end
                                            : std::min(layer.sealed_pages().end, key.n_tokens / kPageTokens);
  };
  for (uint32_t i = 0; i < layers.size(); ++i) {
    if (layers[i] == nullptr) continue;
    (void)rest_bytes(*layers[i], key.n_tokens, &rests);
    const int64_t end = end_of(*layers[i]);
    for (int64_t page = std::max(have[i], layers[i]->sealed_pages().begin); page < end; ++page) {
      if (shared != nullptr) {
        if (SharedPage pages = layers[i]->share_page(page); !pages.empty()) {
          shared->push_back({i, page, std::move(pages)});
          continue;
        }
      }
      CountingWriter size;
      layers[i]->save_page(page, size);
      parts.push_back({i, 0, page, 0, size.bytes()});
    }
  }
  for (uint32_t i = 0; rests && i < layers.size(); ++i) {
    if (layers[i] != nullptr)
      parts.push_back({i, 1, end_of(*layers[i]), 0, rest_bytes(*layers[i], key.n_tokens, &rests)});
  }
  size_t bytes = kPartsOffset + parts.size() * sizeof(Part);
  for (Part& part : parts) {
    part.offset = bytes = round_up(bytes, kAlignment);
    bytes += part.bytes;
  }
  GrowingBuffer block(ledger, Tag::kCache, bytes, "cached page");
  block.grow_to(bytes);
  for (const Part& part : parts) {
    SpanWriter out({block.data() + part.offset, part.bytes});
    if (part.is_rest != 0) {
      layers[part.layer]->save_rest(key.n_tokens, out);
    } else {
      layers[part.layer]->save_page(part.position, out);
    }
  }
  std::memcpy(block.data() + kTokensOffset, key.tokens.data(), kPageTokens * sizeof(int32_t));
  if (!parts.empty()) std::memcpy(block.data() + kPartsOffset, parts.data(), parts.size() * sizeof(Part));
  Head head{kMark, static_cast<uint32_t>(parts.size()), bytes, 0, key.identity, key.token_hash, key.n_tokens};
  std::memcpy(block.data(), &head, sizeof head);
  head.checksum = checksum_of({block.data(), bytes});
  std::memcpy(block.data(), &head, sizeof head);
  for (uint32_t i = 0; i < layers.size(); ++i) {
    if (layers[i] != nullptr) have[i] = std::max(have[i], end_of(*layers[i]));
  }
  return block;
}

void PageBlock::verify(std::span<const std::byte> bytes, const Key& key) {
  const auto corrupt = [](const char* what) {
    fail(ErrorCode::kCorruptData, "[load cached page] expected the {} it was written with, found another", what);
  };
  if (bytes.size() < kPartsOffset) corrupt("size");
  const Head found = head(bytes);
  if (found.mark != kMark || found.bytes != bytes.size()) corrupt("size");
  if (found.checksum != checksum_of(bytes)) corrupt("checksum");
  if (found.identity != key.identity) corrupt("model, policy and tenant");
  if (found.token_hash != key.token_hash || found.n_tokens != key.n_tokens ||
      !std::equal(key.tokens.begin(), key.tokens.end(), tokens(bytes).begin(), tokens(bytes).end())) {
    corrupt("tokens");
  }
  if (found.n_parts > (bytes.size() - kPartsOffset) / sizeof(Part)) corrupt("parts");
  for (const Part& part : parts(bytes)) {
    const auto end = checked_add(part.offset, part.bytes);
    const bool inside =
        end && *end <= bytes.size() && part.position >= 0 && part.position <= key.n_tokens / kPageTokens;
    if (!inside || part.is_rest > 1 || part.layer >= kMostLayers) corrupt("parts");
  }
}

void PageBlock::verify(const GrowingBuffer& buffer, const Key& key) {
  const std::span<const std::byte> all(buffer.data(), buffer.committed());
  if (all.size() < sizeof(Head) || head(all).bytes > all.size()) {
    fail(ErrorCode::kCorruptData, "[load cached page] expected a whole block, found {} bytes", all.size());
  }
  verify(all.first(head(all).bytes), key);
}

PageBlock::Head PageBlock::head(std::span<const std::byte> bytes) {
  Head out;
  std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}

std::span<const int32_t> PageBlock::tokens(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const int32_t*>(bytes.data() + kTokensOffset), static_cast<size_t>(kPageTokens)};
}

std::span<const PageBlock::Part> PageBlock::parts(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const Part*>(bytes.data() + kPartsOffset), head(bytes).n_parts};
}

bool PageBlock::has_rests(std::span<const std::byte> bytes) {
  const auto all = parts(bytes);
  return std::any_of(all.begin(), all.end(), [](const Part& part) { return part.is_rest != 0; });
}

std::span<const std::byte> PageBlock::content(std::span<const std::byte> bytes, const Part& part) {
  return bytes.subspan(part.offset, part.bytes);
}

uint64_t CachedBlock::shared_bytes() const {
  uint64_t sum = 0;
  for (const SharedPart& part : shared) {
    for (const PageRun& run : part.pages) sum += run.bytes();
  }
  return sum;
}

bool CachedBlock::in_use() const {
  return std::any_of(shared.begin(), shared.end(), [](const SharedPart& part) {
    return std::any_of(part.pages.begin(), part.pages.end(), [](const PageRun& run) { return run.shared(); });
  });
}

void load_page_blocks(std::span<const std::shared_ptr<const CachedBlock>> blocks, std::span<LayerState* const> layers) {
  if (blocks.empty()) return;
  const auto last = blocks.back()->bytes();
  const int64_t n_tokens = PageBlock::head(last).n_tokens;
  for (const PageBlock::Part& rest : PageBlock::parts(last)) {
    if (rest.is_rest == 0) continue;
    if (rest.layer >= layers.size() || layers[rest.layer] == nullptr) {
      fail(ErrorCode::kCorruptData, "[load cached page] expected one of {} layers, found layer {}", layers.size(),
           rest.layer);
    }
    LayerState& layer = *layers[rest.layer];
    const int64_t first = layer.first_page(n_tokens);
    const auto wanted = [&](uint32_t of_layer, int64_t position) {
      return of_layer == rest.layer && position >= first && position < rest.position;
    };
    for (const auto& block : blocks) {
      // Of one layer a block has either parts or shared pages, unless sharing ended in between: then it has both in order.
      auto shared = block->shared.begin();
      const auto load_shared_before = [&](int64_t position) {
        for (; shared != block->shared.end() && (shared->layer != rest.layer || shared->position < position); ++shared) {
          if (wanted(shared->layer, shared->position)) layer.load_shared_page(shared->position, shared->pages);
        }
      };
      for (const PageBlock::Part& part : PageBlock::parts(block->bytes())) {
        if (part.is_rest != 0 || !wanted(part.layer, part.position)) continue;
        load_shared_before(part.position);
        StateReader in(PageBlock::content(block->bytes(), part), "cached page");
        layer.load_page(part.position, in);
      }
      load_shared_before(INT64_MAX);
    }
    StateReader in(PageBlock::content(last, rest), "cached page");
    layer.load_rest(in);
  }
  for (const LayerState* layer : layers) {
    if (layer != nullptr && layer->n_tokens() != n_tokens) {
      fail(ErrorCode::kCorruptData, "[load cached page] expected {} tokens in every layer, found {}", n_tokens,
           layer->n_tokens());
    }
  }
}

}  // namespace mneme
