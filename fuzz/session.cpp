#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "context/dense_kv.h"
#include "context/token_chain.h"
#include "engine/session/session_index.h"

namespace {

using namespace mneme;

constexpr std::string_view kIdentity = R"({"format":1,"model":"m","fingerprint":"f","kv":"f16","layers":2})";

/// A sequence of two layers, one with a window, as small as blocks allow.
std::unique_ptr<SequenceState> small_state(Ledger& ledger) {
  std::vector<std::unique_ptr<LayerState>> layers;
  for (const uint32_t window : {0u, 100u}) {
    layers.push_back(std::make_unique<DenseKv>(KvShape{1, 1, 1, window}, DType::kF16, 2048, 64, ledger));
  }
  return std::make_unique<SequenceState>(std::move(layers));
}

/// Puts records with good checksums together, so that what lies behind them is reached: the input chooses their kinds and
/// fields, and whether token hashes fit.
class LogBuilder {
 public:
  explicit LogBuilder(std::span<const uint8_t> choices) : choices_(choices) {
    append(SessionRecord::kIdentity, std::string(kIdentity));
    while (!choices_.empty()) step();
  }
  const std::string& log() const { return log_; }

 private:
  uint8_t next() {
    if (choices_.empty()) return 0;
    const uint8_t value = choices_.front();
    choices_ = choices_.subspan(1);
    return value;
  }
  std::string bytes(size_t n) {
    std::string out;
    for (size_t i = 0; i < n; ++i) out.push_back(static_cast<char>(next()));
    return out;
  }
  template <typename T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void append(SessionRecord kind, const std::string& payload) {
    std::string head;
    put<uint32_t>(head, 0x524d4e4d);
    put(head, static_cast<uint32_t>(kind));
    put<uint64_t>(head, number_++);
    put<uint64_t>(head, payload.size());
    put<uint64_t>(head, XXH3_64bits(payload.data(), payload.size()));
    put<uint64_t>(head, XXH3_64bits(head.data(), head.size()));
    log_ += head + payload + std::string((8 - payload.size() % 8) % 8, '\0');
  }
  uint64_t hash_of(size_t n_tokens) const {
    return token_hash(token_chain("f/f16", tokens_), tokens_, std::min(n_tokens, tokens_.size()));
  }

  void step() {
    const uint8_t choice = next();
    std::string payload;
    if (choice % 4 == 0) {  // anything
      const auto kind = static_cast<SessionRecord>(next() % 6);
      append(kind, bytes(next()));
    } else if (choice % 4 == 1) {  // a commit
      const size_t keep = std::min<size_t>(next() * 8u, tokens_.size()), n_new = next() * 8u;
      tokens_.resize(keep);
      const TokenId token = next();
      tokens_.resize(keep + n_new, token);
      put<uint64_t>(payload, keep);
      put<uint64_t>(payload, n_new);
      for (size_t i = 0; i < n_new; ++i) put(payload, token);
      put<uint64_t>(payload, hash_of(tokens_.size()));
      put<int64_t>(payload, next() * 8 - 8);
      append(SessionRecord::kCommit, payload + (choice < 128 ? "{}" : bytes(next() % 16)));
    } else {  // a page or a rest
      const bool page = choice % 4 == 2;
      const int64_t position = page ? next() % 8 : next() * 8;
      put<uint32_t>(payload, next() % 3);
      put<uint32_t>(payload, 0);
      put<int64_t>(payload, position);
      put<uint64_t>(payload, hash_of(static_cast<size_t>(page ? (position + 1) * kPageTokens : position)));
      put<int64_t>(payload, page ? 0 : static_cast<int8_t>(next()));
      if (!page) put<int64_t>(payload, choice < 224 ? position : next());
      payload.append(page ? 1024 : static_cast<size_t>(position % kPageTokens) * 4, 'x');
      append(page ? SessionRecord::kPage : SessionRecord::kRest, choice < 240 ? payload : payload.substr(0, next()));
    }
  }

  std::span<const uint8_t> choices_;
  std::string log_;
  uint64_t number_ = 0;
  std::vector<TokenId> tokens_;
};

void read(std::span<const std::byte> file) {
  Ledger ledger;
  try {
    SessionIndex index = SessionIndex::read(file, "fuzz");
    if (index.end > file.size() || index.n_state < 0 || static_cast<size_t>(index.n_state) > index.tokens.size()) {
      std::abort();
    }
    const auto state = index.load_state([&] { return small_state(ledger); }, [](auto) {});
    if (state && (state->n_tokens() != index.n_state || index.n_state == 0)) std::abort();
  } catch (const Error&) {
  }
}

}  // namespace

/// Any bytes are refused with an Error or give a session whose parts fit each other.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  read(std::as_bytes(std::span(data, size)));
  const LogBuilder builder({data, size});
  read(std::as_bytes(std::span(builder.log())));
  return 0;
}
