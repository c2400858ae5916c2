#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "context/record_log.h"
#include "model/mixer.h"
#include "model/tokenizer/tokenizer.h"

namespace mneme {

/// What a session belongs to. A state made by another model or another policy is of no use.
struct SessionIdentity {
  std::string model;        ///< For people.
  std::string fingerprint;  ///< See model_fingerprint().
  std::string kv;           ///< Name of the policy.
  uint32_t n_layers = 0;

  /// Root of the token hashes of the session's blocks.
  std::string chain_root() const { return fingerprint + "/" + kv; }
};

/// Kinds of records in a session file; docs/formats/session.md describes them. The values never change.
enum class SessionRecord : uint32_t { kIdentity = 1, kPage = 2, kRest = 3, kCommit = 4 };

/// What a session file holds, found by reading all heads and all small records. Blocks of keys and values are verified
/// when they are loaded. Views point into the bytes that were read.
class SessionIndex {
 public:
  /// A page or a rest of one layer. Position: index of the page, or number of tokens.
  struct BlockKey {
    uint32_t layer;
    int64_t position;
    uint64_t token_hash;  ///< Of all tokens up to the end of the page, or up to the rest.
    auto operator<=>(const BlockKey&) const = default;
  };
  struct Block {
    LogRecord record;
    std::span<const std::byte> bytes;
    int64_t end_page = 0;  ///< Of a rest: the pages before this one belong to it.
  };

  /// Throws Error(kCorruptData) when `file` does not begin with an intact identity; `name` is for the message.
  static SessionIndex read(std::span<const std::byte> file, const std::string& name);

  SessionIdentity identity;
  bool complete = false;              ///< A commit was found.
  std::vector<TokenId> tokens;        ///< All tokens of the text, as of the last commit that verifies.
  int64_t n_state = 0;                ///< Tokens that the saved state covers.
  Json details;                       ///< Messages, sampler: an object.
  uint64_t end = 0, next_number = 0;  ///< Where to go on behind that commit, or behind the identity.
  bool damaged = false;               ///< Something that was once complete is not any more.
  std::map<BlockKey, Block> pages, rests;

  /// The saved state, or as much of its beginning as is intact; null when that is nothing. `make` gives empty states.
  /// Sets damaged when blocks are missing or not what was written. `done` is told of bytes that are not needed any
  /// more. Throws Error for a context too short and a budget too small.
  std::unique_ptr<SequenceState> load_state(const std::function<std::unique_ptr<SequenceState>()>& make,
                                            FunctionRef<void(std::span<const std::byte>)> done);

 private:
  void read_commit(std::span<const std::byte> payload);
  void read_block(SessionRecord kind, const LogRecord& record);
  bool load_at(int64_t n_tokens, std::span<const uint64_t> chain, SequenceState& state, int64_t* intact,
               FunctionRef<void(std::span<const std::byte>)> done) const;
};

}  // namespace mneme
