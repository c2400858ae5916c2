#include "engine/session/session_index.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>

#include "base/error.h"
#include "context/state_layout.h"
#include "context/token_chain.h"

namespace mneme {
namespace {

SessionIdentity read_identity(std::string_view text, const std::string& name) {
  const Json json = parse_json(text, name);
  SessionIdentity identity;
  try {
    if (const int format = json.at("format").get<int>(); format != kStateLayout) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("[session] {}: expected states of layout {}, found {}", name, kStateLayout, format),
                  "another version of mneme saved it; remove it, or go on with that version");
    }
    identity = {json.at("model"), json.at("fingerprint"), json.at("kv"), json.at("layers")};
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptData, "[session] {}: the identity lacks a field: {}", name, e.what());
  }
  return identity;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

SessionIndex SessionIndex::read(std::span<const std::byte> file, const std::string& name) {
  RecordScanner scanner(file);
  const auto first = scanner.next();
  if (!first || scanner.damaged() || first->kind != static_cast<uint32_t>(SessionRecord::kIdentity) ||
      !first->intact()) {
    fail(ErrorCode::kCorruptData, "[session] {}: expected a session's identity at the beginning, found something else",
         name);
  }
  SessionIndex index;
  index.identity = read_identity(text_of(first->payload), name);
  index.end = first->end;
  index.next_number = first->number + 1;
  bool lost = false;
  while (const auto record = scanner.next()) {
    const auto kind = static_cast<SessionRecord>(record->kind);
    try {
      if (kind == SessionRecord::kPage || kind == SessionRecord::kRest) index.read_block(kind, *record);
      if (kind != SessionRecord::kCommit) continue;
      if (!record->intact()) fail(ErrorCode::kCorruptData, "[session] {}: a commit does not verify", name);
      index.read_commit(record->payload);
      index.end = record->end;
      index.next_number = record->number + 1;
    } catch (const Error&) {
      lost = true;
    }
  }
  index.damaged = lost || scanner.damaged();
  return index;
}

void SessionIndex::read_commit(std::span<const std::byte> payload) {
  StateReader in(payload, "commit");
  const auto keep = in.get<uint64_t>(), n_new = in.get<uint64_t>();
  if (keep > tokens.size() || n_new > in.remaining() / sizeof(TokenId)) {
    fail(ErrorCode::kCorruptData, "[session] expected at most {} tokens kept, found {} and {} new", tokens.size(), keep,
         n_new);
  }
  std::vector<TokenId> all(tokens.begin(), tokens.begin() + static_cast<int64_t>(keep));
  all.resize(keep + n_new);
  in.copy_to(reinterpret_cast<std::byte*>(all.data() + keep), n_new * sizeof(TokenId));
  const auto hash = in.get<uint64_t>();
  const auto covered = in.get<int64_t>();
  const auto chain = token_chain(identity.chain_root(), all);
  if (hash != token_hash(chain, all, all.size()) || covered < 0 || static_cast<uint64_t>(covered) > all.size()) {
    fail(ErrorCode::kCorruptData, "[session] the tokens of a commit do not verify");
  }
  Json json = parse_json(text_of(in.take(in.remaining())), "session");
  if (!json.is_object()) fail(ErrorCode::kCorruptData, "[session] expected an object of details");
  tokens = std::move(all);
  n_state = covered;
  details = std::move(json);
  complete = true;
}

void SessionIndex::read_block(SessionRecord kind, const LogRecord& record) {
  StateReader in(record.payload, "block");
  const auto layer = in.get<uint32_t>();
  (void)in.get<uint32_t>();
  const auto position = in.get<int64_t>();
  const auto hash = in.get<uint64_t>();
  Block block{record, {}, in.get<int64_t>()};
  block.bytes = in.take(in.remaining());
  const BlockKey key{layer, position, hash};
  if (layer >= identity.n_layers || position < 0) fail(ErrorCode::kCorruptData, "[session] a block of no layer");
  (kind == SessionRecord::kPage ? pages : rests).insert_or_assign(key, block);
}

/// Loads the state of n_tokens tokens. False when a block is missing or does not verify; *intact is then the number of
/// tokens up to which another try is worthwhile.
bool SessionIndex::load_at(int64_t n_tokens, std::span<const uint64_t> chain, SequenceState& state, int64_t* intact,
                           FunctionRef<void(std::span<const std::byte>)> done) const {
  *intact = n_tokens - 1;
  const uint64_t hash = token_hash(chain, tokens, static_cast<size_t>(n_tokens));
  int64_t first = std::numeric_limits<int64_t>::max(), last = 0;
  struct Part {
    LayerState* layer;
    uint32_t index;
    PageRange range;
    const Block* rest;
  };
  std::vector<Part> parts;
  for (uint32_t i = 0; i < state.n_layers(); ++i) {
    LayerState* const layer = state.layer(i);
    if (layer == nullptr) continue;
    const auto rest = rests.find({i, n_tokens, hash});
    if (rest == rests.end() || !rest->second.record.intact()) return false;
    // A layer with a bounded memory has only its last pages in the file: those that are there without a gap.
    PageRange range{rest->second.end_page, std::clamp<int64_t>(rest->second.end_page, 0, n_tokens / kPageTokens)};
    range.begin = range.end;
    const int64_t wanted = std::max<int64_t>(0, layer->first_page(n_tokens));
    while (range.begin > wanted && pages.contains({i, range.begin - 1, chain[static_cast<size_t>(range.begin)]}))
      --range.begin;
    parts.push_back({layer, i, range, &rest->second});
    first = std::min(first, range.begin);
    last = std::max(last, range.end);
  }
  for (int64_t page = first; page < last; ++page) {
    for (const Part& part : parts) {
      if (page < part.range.begin || page >= part.range.end) continue;
      const Block& block = pages.at({part.index, page, chain[static_cast<size_t>(page) + 1]});
      if (!block.record.intact()) {
        *intact = page * kPageTokens;
        return false;
      }
      StateReader in(block.bytes, "session page");
      part.layer->load_page(page, in);
      done(block.record.payload);
    }
  }
  for (const Part& part : parts) {
    StateReader in(part.rest->bytes, "session rest");
    part.layer->load_rest(in);
    if (part.layer->n_tokens() != n_tokens) fail(ErrorCode::kCorruptData, "[session] a rest of another moment");
  }
  state.advance(n_tokens);
  return true;
}

std::unique_ptr<SequenceState> SessionIndex::load_state(const std::function<std::unique_ptr<SequenceState>()>& make,
                                                        FunctionRef<void(std::span<const std::byte>)> done) {
  const auto chain = token_chain(identity.chain_root(), tokens);
  std::set<int64_t> moments;
  for (const auto& [key, block] : rests) {
    if (key.position <= n_state) moments.insert(key.position);
  }
  for (int64_t limit = n_state; limit > 0;) {
    const auto after = moments.upper_bound(limit);
    if (after == moments.begin() || *std::prev(after) == 0) break;
    const int64_t n_tokens = *std::prev(after);
    int64_t intact = 0;
    auto state = make();
    try {
      if (load_at(n_tokens, chain, *state, &intact, done)) {
        damaged |= n_tokens != n_state;
        n_state = n_tokens;
        return state;
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kCorruptData) throw;
      intact = n_tokens - 1;
    }
    limit = intact;
  }
  damaged |= n_state != 0;
  n_state = 0;
  return nullptr;
}

}  // namespace mneme
