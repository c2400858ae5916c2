#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "budget/ledger.h"
#include "context/page_block.h"
#include "context/page_tier.h"

namespace mneme {

/// Why no more tokens of a prompt came from a cache.
enum class MatchStop : uint8_t {
  kOff,            ///< The request did not want it, or there is none.
  kPromptEnds,     ///< All full pages before the prompt's last token were there.
  kNothingCached,  ///< Nothing of this tenant is cached.
  kTokensDiffer,   ///< What is cached goes on with another token.
  kCacheEnds,      ///< What is cached ends here.
  kEvicted,        ///< It was cached, but had to go, or its time was over.
  kUnreadable,     ///< It was in a lower tier, but is gone, not what was written, or does not fit the budget.
};
std::string_view match_stop_name(MatchStop stop);

/// How long something is kept.
struct KeepRules {
  bool pin = false;         ///< Not evicted before it expires or is unpinned.
  int64_t ttl_seconds = 0;  ///< Not used any more after this time; 0: no limit.
};

/// What a look-up found. Holds its blocks in memory.
struct PrefixMatch {
  std::vector<std::shared_ptr<const CachedBlock>> blocks;  ///< Of the pages 0, 1, ...
  size_t n_tokens = 0;                                     ///< What they cover, a multiple of kPageTokens.
  MatchStop stop = MatchStop::kOff;
  size_t n_equal = 0;  ///< Tokens that agree with something cached: for kTokensDiffer, the first that differs.

  /// Bytes that a sequence which loads the match shares with the cache instead of taking its own.
  uint64_t shared_bytes() const;
  /// Loads the states of all layers, which must be empty.
  void load(std::span<LayerState* const> layers) const;
};

/// What happened to a cache so far.
struct PrefixCacheStats {
  uint64_t looked_up_tokens = 0, reused_tokens = 0;
  uint64_t lower_blocks = 0, unreadable_blocks = 0;  ///< Brought back from lower tiers; refused there.
  uint64_t stored_blocks = 0, evicted_blocks = 0, refused_blocks = 0;  ///< Refused: no room in the budget.
};

/// Pages of all sequences in a tree by their tokens, for other sequences that begin alike.
///
/// A node is a page of kPageTokens tokens behind all pages above it; its key is the tokens themselves (hashes only find
/// them), its block what every layer keeps of it. The root is chosen by the tenant, so nothing is shared between
/// tenants, nor can one see whether another has used a text. One cache belongs to one model and policy; blocks carry
/// both. Blocks never change. Pages of layers that can share them (LayerState::share_page()) lie in RAM once, in
/// the cache and in all sequences that begin with them; of the rest a sequence takes copies: one pass over the state's
/// bytes instead of computing them. What comes back from a lower tier is copied too, until the next sequence that keeps
/// the same page puts its own, shared one in its place.
///
/// Eviction is GreedyDual-Size with Frequency (Cherkasova 1998): priority = clock + uses * cost / bytes, least first,
/// and the clock moves up to the priority that went last. Cost is the time to compute the page again. Only leaves go,
/// so that what remains can be used, and only blocks that no sequence uses, since others would not come free. It is a Reclaimer: requests come before it, whatever it holds.
///
/// With lower tiers every block without a time limit is also written to each of them, behind the back of who made it,
/// and a look-up brings back what is not in RAM, all missing pages at once, from the nearest tier that has it, and
/// verifies it.
///
/// match(), keep() and unpin() from one thread at a time; the rest, reclaim() among it, from any.
class PrefixCache : public Reclaimer {
 public:
  struct Options {
    uint64_t max_bytes = ~uint64_t{0};         ///< Of blocks in RAM, shared ones too; the ledger's limit holds as well.
    uint64_t max_pinned_bytes = ~uint64_t{0};  ///< What goes beyond is kept without a pin.
    std::function<int64_t()> now;              ///< Seconds; the system's clock when empty.
    std::vector<PageTier*> tiers;              ///< Behind RAM, nearest first; they outlive the cache.
  };

  /// `identity`: model, policy and, where pages outlive the process, kStateLayout. The ledger must outlive the cache.
  PrefixCache(Ledger& ledger, std::string identity, Options options);
  ~PrefixCache() override;

  /// The longest cached beginning of `tokens` that a sequence can go on from, at most max_tokens long.
  PrefixMatch match(std::string_view tenant, std::span<const int32_t> tokens, size_t max_tokens);
  /// Keeps the full pages of a sequence that has read `tokens`: those that are not there yet and fit the budget. Layers
  /// are null where a model has no state. `ns_per_token`: what computing a token costs now.
  void keep(std::string_view tenant, std::span<const int32_t> tokens, std::span<LayerState* const> layers,
            const KeepRules& rules, double ns_per_token);
  /// Ends all pins of a tenant.
  void unpin(std::string_view tenant);

  PrefixCacheStats stats() const;
  /// Of its blocks; what sequences share with it is part of that.
  uint64_t bytes() const;

  std::string name() const override { return "prefix cache"; }
  uint64_t reclaimable(Tier tier) const override;
  double cost_per_byte() const override;
  uint64_t reclaim(Tier tier, uint64_t bytes) override;

 private:
  struct Node;
  using Queue = std::set<std::pair<double, Node*>>;

  struct Path;

  Node* child_of(Node& node, std::span<const int32_t> page);
  Node& add_child(Node& node, std::span<const int32_t> page);
  Node& root_of(std::string_view tenant);
  Path walk(Node& root, std::span<const int32_t> tokens, const std::vector<PageTier*>& below, PrefixMatch& match);
  std::vector<PageTier*> find_below(std::string_view tenant, std::span<const int32_t> tokens) const;
  void read_missing(Path& path, uint64_t identity, std::span<const int32_t> tokens, const std::vector<PageTier*>& below,
                    PrefixMatch& match);
  bool make_room(uint64_t bytes);
  bool usable(const Node& node, int64_t now) const;
  void use(Node& node);
  void set_block(Node& node, std::shared_ptr<const CachedBlock> block);
  void replace_block(Node& node, CachedBlock block);
  std::shared_ptr<const GrowingBuffer> whole_block(const PageBlock::Key& key, std::span<LayerState* const> layers,
                                                   std::vector<int64_t> have);
  void drop_block(Node& node);
  void update_queue(Node& node);
  void drop_subtree(Node& node);
  void forget_ghosts(Node& node);
  uint64_t free_least(uint64_t bytes);

  Ledger& ledger_;
  std::string identity_;
  Options options_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Node>, std::less<>> roots_;  ///< By tenant.
  Queue queue_;                                                      ///< Nodes whose block may go, by priority.
  double clock_ = 0;
  uint64_t bytes_ = 0, pinned_bytes_ = 0;
  PrefixCacheStats stats_;
};

}  // namespace mneme
