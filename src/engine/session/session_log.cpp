#include "engine/session/session_log.h"

#include <algorithm>

#include "context/state_layout.h"
#include "context/token_chain.h"

namespace mneme {
namespace {

/// The disk tier is asked for room in steps of this size.
constexpr uint64_t kDiskStep = uint64_t{1} << 20;

std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

SessionLog::SessionLog(const std::string& path, SessionIdentity identity, Ledger& ledger)
    : identity_(std::move(identity)), log_(path), disk_(ledger.reserve(Tag::kKv, 0, "session", Tier::kDisk)) {}

void SessionLog::resume(const SessionIndex& index) {
  tokens_ = index.tokens;
  n_state_ = index.n_state;
  end_ = index.end;
  next_number_ = index.next_number;
  const auto take = [&](const auto& found, Blocks& into) {
    for (const auto& [key, block] : found) {
      const uint64_t bytes = RecordLog::record_bytes(block.record.payload.size());
      if (block.record.end <= end_) into[{key.layer, key.position}] = {key.token_hash, block.record.end, bytes};
    }
  };
  take(index.pages, pages_);
  take(index.rests, rests_);
  disk_.resize(log_.bytes());
}

void SessionLog::roll_back() {
  log_.cut(end_, next_number_);
  const auto uncovered = [&](const auto& entry) { return entry.second.end > end_; };
  std::erase_if(pages_, uncovered);
  std::erase_if(rests_, uncovered);
  disk_.resize(end_);
}

void SessionLog::append(const SessionMoment& moment, SaveDepth depth) {
  if (log_.bytes() != end_ || log_.next_number() != next_number_) roll_back();  // a write that was cut short
  if (next_number_ == 0) append_identity();
  const auto chain = token_chain(identity_.chain_root(), moment.tokens);
  const int64_t n_state = moment.state == nullptr ? 0 : append_state(moment, chain, depth);
  append_commit(moment, token_hash(chain, moment.tokens, moment.tokens.size()), n_state);
  disk_.resize(log_.bytes());
  if (depth == SaveDepth::kComplete) {
    log_.sync();
  } else {
    log_.flush();
  }
  tokens_.assign(moment.tokens.begin(), moment.tokens.end());
  n_state_ = n_state;
  end_ = log_.bytes();
  next_number_ = log_.next_number();
}

void SessionLog::append_identity() {
  const std::string text = json_text({{"format", kStateLayout},
                                      {"model", identity_.model},
                                      {"fingerprint", identity_.fingerprint},
                                      {"kv", identity_.kv},
                                      {"layers", identity_.n_layers}});
  log_.append(static_cast<uint32_t>(SessionRecord::kIdentity),
              [&](StateWriter& out) { out.write(std::as_bytes(std::span(text))); });
}

/// Returns the number of tokens that the appended state covers.
int64_t SessionLog::append_state(const SessionMoment& moment, std::span<const uint64_t> chain, SaveDepth depth) {
  const SequenceState& state = *moment.state;
  const int64_t n_tokens = state.n_tokens();
  int64_t covered = 0;
  for (int64_t page = 0; page < n_tokens / kPageTokens; ++page) {
    const uint64_t hash = chain[static_cast<size_t>(page) + 1];
    for (uint32_t i = 0; i < state.n_layers(); ++i) {
      const LayerState* const layer = state.layer(i);
      if (layer == nullptr) continue;
      const PageRange sealed = layer->sealed_pages();
      if (page < sealed.begin || page >= sealed.end) continue;
      const auto found = pages_.find({i, page});
      if (found != pages_.end() && found->second.token_hash == hash) continue;
      append_block(SessionRecord::kPage, i, page, hash, 0, [&](StateWriter& out) { layer->save_page(page, out); });
    }
    // Rests between pages are small, and let a damaged file be used up to the damage.
    if (append_rests(state, (page + 1) * kPageTokens, hash)) covered = (page + 1) * kPageTokens;
  }
  if (depth == SaveDepth::kProgress) {
    // A state some tokens behind will do: those are quickly computed again.
    const auto same = std::mismatch(tokens_.begin(), tokens_.end(), moment.tokens.begin(), moment.tokens.end());
    if (n_state_ > covered && n_state_ <= same.first - tokens_.begin() && n_state_ <= n_tokens) covered = n_state_;
    if (n_tokens - covered < kPageTokens &&
        (covered == 0 ||
         append_rests(state, covered, token_hash(chain, moment.tokens, static_cast<size_t>(covered))))) {
      return covered;
    }
  }
  append_rests(state, n_tokens, token_hash(chain, moment.tokens, static_cast<size_t>(n_tokens)));
  return n_tokens;
}

/// Appends the rests of all layers as of n_tokens, those that are not there yet. False, and nothing is appended, when a
/// layer cannot tell any more.
bool SessionLog::append_rests(const SequenceState& state, int64_t n_tokens, uint64_t hash) {
  std::vector<uint32_t> missing;
  for (uint32_t i = 0; i < state.n_layers(); ++i) {
    const auto found = rests_.find({i, n_tokens});
    if (state.layer(i) == nullptr || (found != rests_.end() && found->second.token_hash == hash)) continue;
    CountingWriter size;
    if (!state.layer(i)->save_rest(n_tokens, size)) return false;
    missing.push_back(i);
  }
  for (const uint32_t i : missing) {
    const LayerState* const layer = state.layer(i);
    const int64_t sealed = layer->sealed_pages().end;
    const int64_t end_page = n_tokens == layer->n_tokens() ? sealed : std::min(sealed, n_tokens / kPageTokens);
    append_block(SessionRecord::kRest, i, n_tokens, hash, end_page,
                 [&](StateWriter& out) { layer->save_rest(n_tokens, out); });
  }
  return true;
}

void SessionLog::append_block(SessionRecord kind, uint32_t layer, int64_t position, uint64_t hash, int64_t end_page,
                              FunctionRef<void(StateWriter&)> content) {
  const uint64_t before = log_.bytes();
  log_.append(static_cast<uint32_t>(kind), [&](StateWriter& out) {
    out.put(layer);
    out.put(uint32_t{0});
    out.put(position);
    out.put(hash);
    out.put(end_page);
    content(out);
  });
  (kind == SessionRecord::kPage ? pages_ : rests_)[{layer, position}] = {hash, log_.bytes(), log_.bytes() - before};
  if (log_.bytes() > disk_.bytes()) disk_.resize(log_.bytes() + kDiskStep);
}

void SessionLog::append_commit(const SessionMoment& moment, uint64_t hash, int64_t n_state) {
  const auto same = std::mismatch(tokens_.begin(), tokens_.end(), moment.tokens.begin(), moment.tokens.end());
  const std::span<const TokenId> fresh(same.second, moment.tokens.end());
  const uint64_t n_kept = static_cast<uint64_t>(same.first - tokens_.begin());
  const std::string text = json_text(moment.details);
  log_.append(static_cast<uint32_t>(SessionRecord::kCommit), [&](StateWriter& out) {
    out.put(n_kept);
    out.put<uint64_t>(fresh.size());
    out.write(std::as_bytes(fresh));
    out.put(hash);
    out.put(n_state);
    out.write(std::as_bytes(std::span(text)));
  });
}

uint64_t SessionLog::live_bytes() const {
  const auto chain = token_chain(identity_.chain_root(), tokens_);
  const auto is_boundary_of_text = [&](int64_t pages, uint64_t hash) {
    return static_cast<size_t>(pages) < chain.size() && chain[static_cast<size_t>(pages)] == hash;
  };
  uint64_t sum = tokens_.size() * sizeof(TokenId);
  for (const auto& [key, saved] : pages_) {
    if (is_boundary_of_text(key.second + 1, saved.token_hash)) sum += saved.bytes;
  }
  for (const auto& [key, saved] : rests_) {
    const bool boundary =
        key.second % kPageTokens == 0 && is_boundary_of_text(key.second / kPageTokens, saved.token_hash);
    if (boundary || key.second == n_state_) sum += saved.bytes;
  }
  return sum;
}

}  // namespace mneme
