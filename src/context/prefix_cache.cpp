#include "context/prefix_cache.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "context/token_chain.h"

namespace mneme {
namespace {

/// Evicted pages that are remembered behind one page, at a KiB each.
constexpr size_t kMostGhosts = 64;

}  // namespace

std::string_view match_stop_name(MatchStop stop) {
  switch (stop) {
    case MatchStop::kOff:
      return "off";
    case MatchStop::kPromptEnds:
      return "prompt_ends";
    case MatchStop::kNothingCached:
      return "nothing_cached";
    case MatchStop::kTokensDiffer:
      return "tokens_differ";
    case MatchStop::kCacheEnds:
      return "cache_ends";
    case MatchStop::kEvicted:
      return "evicted";
    case MatchStop::kUnreadable:
      return "unreadable";
  }
  return "unknown";
}

void PrefixMatch::load(std::span<LayerState* const> layers) const {
  load_page_blocks(blocks, layers);
}

uint64_t PrefixMatch::shared_bytes() const {
  uint64_t sum = 0;
  for (const auto& block : blocks) sum += block->shared_bytes();
  return sum;
}

/// A page in the tree. Without a block it is a memory of what was there.
struct PrefixCache::Node {
  Node* parent = nullptr;
  uint64_t token_hash = 0;
  std::vector<int32_t> tokens;
  std::map<uint64_t, std::unique_ptr<Node>> children;  ///< By token hash.
  std::shared_ptr<const CachedBlock> block;
  std::vector<int64_t> have;  ///< Pages of each layer in the blocks down to this one.
  uint32_t n_child_blocks = 0;
  bool pinned = false, queued = false;
  double priority = 0, cost = 0, uses = 1;
  double touched = 0;  ///< The cache's clock when it was last used.
  int64_t expires = 0;  ///< 0: never.
};

PrefixCache::PrefixCache(Ledger& ledger, std::string identity, Options options)
    : ledger_(ledger), identity_(std::move(identity)), options_(std::move(options)) {
  if (!options_.now) {
    options_.now = [] {
      return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
    };
  }
  ledger_.add_reclaimer(this);
}

PrefixCache::~PrefixCache() {
  ledger_.remove_reclaimer(this);
}

PrefixCache::Node& PrefixCache::root_of(std::string_view tenant) {
  const auto found = roots_.find(tenant);
  if (found != roots_.end()) return *found->second;
  auto root = std::make_unique<Node>();
  root->token_hash = token_chain(identity_ + "/" + std::string(tenant), {}).front();
  return *roots_.emplace(std::string(tenant), std::move(root)).first->second;
}

PrefixCache::Node* PrefixCache::child_of(Node& node, std::span<const int32_t> page) {
  const auto found = node.children.find(next_token_hash(node.token_hash, page));
  if (found == node.children.end() || !std::equal(page.begin(), page.end(), found->second->tokens.begin()))
    return nullptr;
  return found->second.get();
}

PrefixCache::Node& PrefixCache::add_child(Node& node, std::span<const int32_t> page) {
  auto child = std::make_unique<Node>();
  child->parent = &node;
  child->token_hash = next_token_hash(node.token_hash, page);
  child->tokens.assign(page.begin(), page.end());
  std::unique_ptr<Node>& place = node.children[child->token_hash];
  if (place && place->block) drop_subtree(*place);  // other tokens of the same hash
  place = std::move(child);
  return *place;
}

bool PrefixCache::usable(const Node& node, int64_t now) const {
  return node.block != nullptr && (node.expires == 0 || now < node.expires);
}

void PrefixCache::use(Node& node) {
  node.uses += 1;
  node.touched = clock_;
  update_queue(node);
}

/// Puts a node where it belongs in the order of eviction, or out of it.
void PrefixCache::update_queue(Node& node) {
  if (node.queued) queue_.erase({node.priority, &node});
  node.queued = node.block != nullptr && node.n_child_blocks == 0 && !node.pinned && node.parent != nullptr;
  if (!node.queued) return;
  const bool expired = node.expires != 0 && options_.now() >= node.expires;
  node.priority = expired ? 0 : node.touched + node.uses * node.cost / static_cast<double>(node.block->committed());
  queue_.insert({node.priority, &node});
}

void PrefixCache::set_block(Node& node, std::shared_ptr<const CachedBlock> block) {
  node.block = std::move(block);
  node.touched = clock_;
  node.have = node.parent->have;
  const auto has = [&](uint32_t layer, int64_t end) {
    if (layer >= node.have.size()) node.have.resize(layer + 1);
    node.have[layer] = std::max(node.have[layer], end);
  };
  for (const PageBlock::Part& part : PageBlock::parts(node.block->bytes())) {
    has(part.layer, part.is_rest != 0 ? part.position : part.position + 1);
  }
  for (const SharedPart& part : node.block->shared) has(part.layer, part.position + 1);
  bytes_ += node.block->committed();
  if (node.pinned) pinned_bytes_ += node.block->committed();
  ++node.parent->n_child_blocks;
  update_queue(*node.parent);
  update_queue(node);
}

void PrefixCache::drop_block(Node& node) {
  if (std::exchange(node.queued, false)) queue_.erase({node.priority, &node});
  bytes_ -= node.block->committed();
  if (std::exchange(node.pinned, false)) pinned_bytes_ -= node.block->committed();
  node.block.reset();
  --node.parent->n_child_blocks;
  update_queue(*node.parent);
  ++stats_.evicted_blocks;
  forget_ghosts(node);
}

/// A page without a block is remembered as long as its parent has one, so that a look-up can say that it was evicted.
/// No block lies below one that is gone.
void PrefixCache::forget_ghosts(Node& node) {
  std::erase_if(node.children, [](const auto& entry) { return !entry.second->block; });
}

void PrefixCache::drop_subtree(Node& node) {
  for (const auto& [hash, child] : node.children) {
    if (child->block) drop_subtree(*child);
  }
  drop_block(node);
}

/// Evicts blocks of at least so many bytes, if there are as many.
uint64_t PrefixCache::free_least(uint64_t bytes) {
  uint64_t freed = 0;
  for (auto next = queue_.begin(); freed < bytes && next != queue_.end();) {
    Node& node = *next->second;
    if (node.block.use_count() > 1 || node.block->in_use()) {  // its bytes would not come free now
      ++next;
      continue;
    }
    clock_ = std::max(clock_, node.priority);
    freed += node.block->committed();
    drop_block(node);
    next = queue_.begin();  // its parent may be a candidate now
  }
  return freed;
}

/// The nodes of a prompt's pages, and their blocks as far as they are known.
struct PrefixCache::Path {
  std::vector<Node*> nodes;
  std::vector<std::shared_ptr<const CachedBlock>> blocks;
};

PrefixMatch PrefixCache::match(std::string_view tenant, std::span<const int32_t> tokens, size_t max_tokens) {
  PrefixMatch match;
  tokens = tokens.first(std::min(max_tokens, tokens.size()));
  // Tiers have locks of their own, under which they reserve: they are never asked under this one.
  const std::vector<PageTier*> below = find_below(tenant, tokens);
  std::unique_lock lock(mutex_);
  stats_.looked_up_tokens += tokens.size();
  Node& root = root_of(tenant);
  Path path = walk(root, tokens, below, match);
  if (std::find(path.blocks.begin(), path.blocks.end(), nullptr) != path.blocks.end()) {
    lock.unlock();
    read_missing(path, root.token_hash, tokens, below, match);
    lock.lock();
  }
  bool room = true;  // no block is kept below one that is not
  for (size_t i = 0; i < path.blocks.size(); ++i) {
    Node& node = *path.nodes[i];
    if (!node.block && room) {
      room = make_room(path.blocks[i]->committed());
      if (room && below[i] != nullptr) {
        node.cost = below[i]->ns_per_byte() * static_cast<double>(path.blocks[i]->committed());
      }
      if (room) set_block(node, path.blocks[i]);
    }
    if (PageBlock::has_rests(path.blocks[i]->bytes())) match.n_tokens = (i + 1) * kPageTokens;
  }
  path.blocks.resize(match.n_tokens / kPageTokens);
  for (size_t i = 0; i < path.blocks.size(); ++i) {
    if (path.nodes[i]->block) use(*path.nodes[i]);
  }
  match.blocks = std::move(path.blocks);
  stats_.reused_tokens += match.n_tokens;
  return match;
}

/// For each page of the tokens the nearest lower tier that has it, or null.
std::vector<PageTier*> PrefixCache::find_below(std::string_view tenant, std::span<const int32_t> tokens) const {
  const auto chain = token_chain(identity_ + "/" + std::string(tenant), tokens);
  const std::span<const uint64_t> hashes(chain.begin() + 1, chain.end());
  std::vector<PageTier*> out(hashes.size());
  for (PageTier* tier : options_.tiers) {
    const std::vector<bool> has = tier->has(hashes);
    for (size_t i = 0; i < out.size(); ++i) {
      if (has[i] && out[i] == nullptr) out[i] = tier;
    }
  }
  return out;
}

/// Follows the tokens page by page as far as there are blocks in RAM (or null in the path: in a lower tier).
PrefixCache::Path PrefixCache::walk(Node& root, std::span<const int32_t> tokens, const std::vector<PageTier*>& below,
                                    PrefixMatch& match) {
  Path path;
  const int64_t now = options_.now();
  Node* node = &root;
  match.stop = MatchStop::kPromptEnds;
  for (size_t i = 0; (i + 1) * kPageTokens <= tokens.size(); ++i) {
    const auto page = tokens.subspan(i * kPageTokens, kPageTokens);
    Node* child = child_of(*node, page);
    const bool readable = below[i] != nullptr;
    if (child == nullptr && readable) child = &add_child(*node, page);
    if (child == nullptr) {
      match.stop = !node->children.empty() ? MatchStop::kTokensDiffer
                   : i > 0                 ? MatchStop::kCacheEnds
                                           : MatchStop::kNothingCached;
      size_t longest = 0;
      for (const auto& [hash, other] : node->children) {
        const auto differs = std::mismatch(page.begin(), page.end(), other->tokens.begin(), other->tokens.end());
        longest = std::max(longest, static_cast<size_t>(differs.first - page.begin()));
      }
      match.n_equal += longest;
      return path;
    }
    match.n_equal = (i + 1) * kPageTokens;
    if (!usable(*child, now) && !readable) {
      match.stop = MatchStop::kEvicted;
      return path;
    }
    path.nodes.push_back(child);
    path.blocks.push_back(usable(*child, now) ? child->block : nullptr);
    node = child;
  }
  return path;
}

/// Brings back the blocks of a path that are in lower tiers, and cuts it where one is not what was written.
void PrefixCache::read_missing(Path& path, uint64_t identity, std::span<const int32_t> tokens,
                               const std::vector<PageTier*>& below, PrefixMatch& match) {
  uint64_t n_back = 0;
  for (PageTier* tier : options_.tiers) {
    std::vector<uint64_t> hashes;
    std::vector<size_t> pages;
    for (size_t i = 0; i < path.nodes.size(); ++i) {
      if (path.blocks[i] || below[i] != tier) continue;
      hashes.push_back(path.nodes[i]->token_hash);
      pages.push_back(i);
    }
    if (hashes.empty()) continue;
    const auto blocks = tier->get(hashes);
    for (size_t i = 0; i < pages.size(); ++i) {
      if (blocks[i] == nullptr) continue;
      const int64_t boundary = static_cast<int64_t>(pages[i] + 1) * kPageTokens;
      try {
        PageBlock::verify(*blocks[i],
                          {identity, hashes[i], boundary, tokens.subspan(pages[i] * kPageTokens, kPageTokens)});
        path.blocks[pages[i]] = std::make_shared<const CachedBlock>(CachedBlock{blocks[i], {}});
        ++n_back;
      } catch (const Error&) {
        tier->remove(hashes[i]);
      }
    }
  }
  const auto missing = std::find(path.blocks.begin(), path.blocks.end(), nullptr);
  const std::lock_guard lock(mutex_);
  stats_.lower_blocks += n_back;
  if (missing == path.blocks.end()) return;
  ++stats_.unreadable_blocks;
  match.stop = MatchStop::kUnreadable;
  path.nodes.resize(static_cast<size_t>(missing - path.blocks.begin()));
  path.blocks.resize(path.nodes.size());
}

/// Keeps to the cache's own limit.
bool PrefixCache::make_room(uint64_t bytes) {
  if (bytes_ + bytes > options_.max_bytes) free_least(bytes_ + bytes - options_.max_bytes);
  return bytes_ + bytes <= options_.max_bytes;
}

/// The block as one piece, for lower tiers: null when there is no room for it.
std::shared_ptr<const GrowingBuffer> PrefixCache::whole_block(const PageBlock::Key& key,
                                                              std::span<LayerState* const> layers,
                                                              std::vector<int64_t> have) {
  try {
    return std::make_shared<const GrowingBuffer>(PageBlock::make(ledger_, key, layers, have));
  } catch (const Error&) {
    return nullptr;
  }
}

void PrefixCache::keep(std::string_view tenant, std::span<const int32_t> tokens, std::span<LayerState* const> layers,
                       const KeepRules& rules, double ns_per_token) {
  const bool can_share =
      std::any_of(layers.begin(), layers.end(), [](const LayerState* l) { return l != nullptr && l->shares_pages(); });
  std::unique_lock lock(mutex_);
  Node* node = &root_of(tenant);
  const int64_t now = options_.now();
  // Blocks on the way are held, so that making room for the next page does not take the one before it.
  std::vector<std::shared_ptr<const CachedBlock>> held;
  for (size_t end = kPageTokens; end <= tokens.size(); end += kPageTokens) {
    const auto page = tokens.subspan(end - kPageTokens, kPageTokens);
    if (node->children.size() > kMostGhosts + node->n_child_blocks) forget_ghosts(*node);
    Node* child = child_of(*node, page);
    if (child == nullptr) child = &add_child(*node, page);
    const bool there = usable(*child, now);
    // A copy that came from below lies in memory twice while this sequence runs.
    const bool better = there && can_share && child->block->shared.empty() && child->block.use_count() == 1;
    if (!there || better) {
      if (!there && child->block) drop_subtree(*child);
      const PageBlock::Key key{roots_.find(tenant)->second->token_hash, child->token_hash, static_cast<int64_t>(end),
                               page};
      std::vector<int64_t> have = node->have;
      have.resize(layers.size());
      // Reserving may ask this cache, or others, to give something back: not under the lock.
      CachedBlock block;
      std::shared_ptr<const GrowingBuffer> whole;
      const bool below = !there && rules.ttl_seconds == 0 && !options_.tiers.empty();
      lock.unlock();
      try {
        std::vector<int64_t> counted = have;
        block.block =
            std::make_shared<const GrowingBuffer>(PageBlock::make(ledger_, key, layers, counted, &block.shared));
        if (below) whole = block.shared.empty() ? block.block : whole_block(key, layers, have);
      } catch (const Error&) {
        block.block = nullptr;
      }
      lock.lock();
      if (there) {
        if (block.block != nullptr && child->block != nullptr) replace_block(*child, std::move(block));
      } else if (!block.block || !make_room(block.committed())) {
        ++stats_.refused_blocks;
        return;
      } else {
        child->cost = ns_per_token * kPageTokens;
        if (rules.ttl_seconds == 0) {  // it can be brought back from below
          for (const PageTier* tier : options_.tiers) {
            child->cost = std::min(child->cost, tier->ns_per_byte() * static_cast<double>(block.committed()));
          }
        }
        child->uses = 1;
        child->expires = 0;
        set_block(*child, std::make_shared<const CachedBlock>(std::move(block)));
        ++stats_.stored_blocks;
        if (whole != nullptr) {
          const auto kept = child->block;  // stays while the lock is open
          lock.unlock();
          for (PageTier* tier : options_.tiers) tier->put(key.token_hash, whole);
          lock.lock();
        }
      }
    }
    if (!child->block) return;  // it went while the lock was open
    if (rules.ttl_seconds > 0) child->expires = now + rules.ttl_seconds;
    if (rules.pin && !child->pinned && pinned_bytes_ + child->block->committed() <= options_.max_pinned_bytes) {
      child->pinned = true;
      pinned_bytes_ += child->block->committed();
    }
    update_queue(*child);
    held.push_back(child->block);
    node = child;
  }
}

/// Puts the same page in another form in the place of a node's block.
void PrefixCache::replace_block(Node& node, CachedBlock block) {
  bytes_ -= node.block->committed();
  if (node.pinned) pinned_bytes_ -= node.block->committed();
  node.block = std::make_shared<const CachedBlock>(std::move(block));
  bytes_ += node.block->committed();
  if (node.pinned) pinned_bytes_ += node.block->committed();
  update_queue(node);
}

void PrefixCache::unpin(std::string_view tenant) {
  const std::lock_guard lock(mutex_);
  const auto found = roots_.find(tenant);
  if (found == roots_.end()) return;
  std::vector<Node*> all = {found->second.get()};
  while (!all.empty()) {
    Node& node = *all.back();
    all.pop_back();
    if (node.pinned) pinned_bytes_ -= node.block->committed();
    node.pinned = false;
    update_queue(node);
    for (const auto& [hash, child] : node.children) all.push_back(child.get());
  }
}

PrefixCacheStats PrefixCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

uint64_t PrefixCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

uint64_t PrefixCache::reclaimable(Tier tier) const {
  if (tier != Tier::kRam) return 0;
  const std::lock_guard lock(mutex_);
  uint64_t sum = 0;
  std::vector<const Node*> all;
  for (const auto& [tenant, root] : roots_) all.push_back(root.get());
  while (!all.empty()) {
    const Node& node = *all.back();
    all.pop_back();
    for (const auto& [hash, child] : node.children) all.push_back(child.get());
    if (node.block && !node.pinned && !node.block->in_use()) sum += node.block->committed();
  }
  return sum;
}

double PrefixCache::cost_per_byte() const {
  const std::lock_guard lock(mutex_);
  if (queue_.empty()) return 0;
  const Node& node = *queue_.begin()->second;
  return node.cost / static_cast<double>(node.block->committed());
}

uint64_t PrefixCache::reclaim(Tier tier, uint64_t bytes) {
  if (tier != Tier::kRam) return 0;
  const std::lock_guard lock(mutex_);
  return free_least(bytes);
}

}  // namespace mneme
