#include "engine/grammar/grammar_state.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mneme {
namespace {

constexpr int kStateVersion = 1;
constexpr size_t kMaxTriggerBytes = 64 * 1024;
constexpr size_t kMaxLazyMasks = 64;

}  // namespace

GrammarState::Lazy::Lazy(GrammarTrigger trigger, std::vector<TokenMatcher::Handle> after, Ledger& ledger)
    : tokens(std::move(trigger.tokens)),
      words(trigger.words),
      after_word(std::move(after)),
      memory(ledger.reserve(Tag::kCache, words.bytes(), "trigger of a grammar")) {}

GrammarState::GrammarState(std::shared_ptr<TokenMatcher> matcher, GrammarTrigger trigger)
    : matcher_(std::move(matcher)), at_(matcher_->start()) {
  if (trigger.empty()) return;
  active_ = false;
  std::sort(trigger.tokens.begin(), trigger.tokens.end());
  size_t bytes = 0;
  for (const std::string& word : trigger.words) {
    if (word.empty()) fail(ErrorCode::kInvalidArgument, "[grammar trigger] expected a word, found an empty one");
    bytes += word.size();
  }
  if (bytes > kMaxTriggerBytes) {
    fail(ErrorCode::kInvalidArgument, "[grammar trigger] expected at most {} bytes of words, found {}",
         kMaxTriggerBytes, bytes);
  }
  std::vector<TokenMatcher::Handle> after_word;
  for (const std::string& word : trigger.words) {
    after_word.push_back(matcher_->advance(at_, word));
    if (matcher_->is_dead(after_word.back())) {
      fail(ErrorCode::kInvalidArgument, "[grammar trigger] expected a word that the grammar can begin with, found '{}'",
           brief_text(word));
    }
  }
  const VocabularyView& vocabulary = matcher_->vocabulary();
  for (const TokenId id : trigger.tokens) {
    if (id < 0 || static_cast<size_t>(id) >= vocabulary.size()) {
      fail(ErrorCode::kInvalidArgument, "[grammar trigger] expected tokens below {}, found {}", vocabulary.size(), id);
    }
    if (!matcher_->allows(at_, vocabulary.piece(id))) {
      fail(ErrorCode::kInvalidArgument,
           "[grammar trigger] expected a token that the grammar can begin with, found {} ('{}')", id,
           brief_text(vocabulary.piece(id)));
    }
  }
  lazy_ = std::make_shared<Lazy>(std::move(trigger), std::move(after_word), matcher_->ledger());
}

/// Where the sequence stands after a token that does not end the answer; nothing when it is not allowed.
std::optional<GrammarState::Position> GrammarState::after(TokenId id) {
  const std::string piece = matcher_->vocabulary().piece(id);
  if (active_) {
    if (piece.empty() || piece.front() == '\0') return std::nullopt;
    Position result{true, matcher_->advance(at_, piece), search_};
    return matcher_->is_dead(result.at) ? std::nullopt : std::optional(std::move(result));
  }
  if (std::binary_search(lazy_->tokens.begin(), lazy_->tokens.end(), id)) {
    return Position{true, matcher_->advance(at_, piece), search_};
  }
  ByteMatcher::State search = search_;
  for (size_t i = 0; i < piece.size(); ++i) {
    search = lazy_->words.step(search, static_cast<unsigned char>(piece[i]));
    const std::optional<size_t> word = lazy_->words.match(search);
    if (!word) continue;
    Position result{true, matcher_->advance(lazy_->after_word[*word], std::string_view(piece).substr(i + 1)), search};
    return matcher_->is_dead(result.at) ? std::nullopt : std::optional(std::move(result));
  }
  return Position{false, at_, search};
}

bool GrammarState::allows(TokenId id) {
  if (is_end(id)) return is_complete();
  return !finished_ && after(id).has_value();
}

const TokenMask& GrammarState::mask() {
  if (finished_) {
    auto ends = std::make_shared<TokenMask>(matcher_->vocabulary().size());
    for (const TokenId id : matcher_->trie().ends_of_generation()) ends->set(id);
    mask_ = std::move(ends);
  } else {
    mask_ = active_ ? matcher_->mask(at_) : lazy_mask();
  }
  return *mask_;
}

/// Everything but the tokens that hold a trigger and then break the grammar. They are found by searching for the words
/// and walking the vocabulary at the same time.
std::shared_ptr<const TokenMask> GrammarState::lazy_mask() {
  const std::lock_guard lock(lazy_->mutex);
  if (const auto known = lazy_->masks.find(search_); known != lazy_->masks.end()) return known->second;
  if (lazy_->masks.size() == kMaxLazyMasks) lazy_->masks.clear();
  lazy_->memory.resize(lazy_->words.bytes() + (lazy_->masks.size() + 1) * matcher_->vocabulary().size() / 8);
  const VocabularyTrie& trie = matcher_->trie();
  auto mask = std::make_shared<TokenMask>(matcher_->vocabulary().size(), true);
  std::vector<ByteMatcher::State> path(trie.longest_text() + 1, search_);
  for (size_t i = 0; i < trie.n_nodes();) {
    const VocabularyTrie::Node& node = trie.node(i);
    const ByteMatcher::State search = lazy_->words.step(path[node.depth - 1u], node.byte);
    if (const std::optional<size_t> word = lazy_->words.match(search)) {
      matcher_->restrict_subtree(lazy_->after_word[*word], i, *mask);
      i = node.end;
    } else {
      path[node.depth] = search;
      ++i;
    }
  }
  for (const TokenId id : trie.left_out()) {
    if (!after(id)) mask->clear(id);
  }
  for (const TokenId id : lazy_->tokens) mask->set(id);
  return lazy_->masks.emplace(search_, std::move(mask)).first->second;
}

void GrammarState::accept(TokenId id) {
  const VocabularyView& vocabulary = matcher_->vocabulary();
  if (id < 0 || static_cast<size_t>(id) >= vocabulary.size()) {
    fail(ErrorCode::kInvalidArgument, "[grammar] expected a token below {}, found {}", vocabulary.size(), id);
  }
  if (is_end(id)) {
    if (!is_complete()) {
      fail(ErrorCode::kInvalidArgument, "[grammar] expected more text, found token {}, which ends the answer", id);
    }
    finished_ = true;
  } else {
    std::optional<Position> next = finished_ ? std::nullopt : after(id);
    if (!next) {
      fail(ErrorCode::kInvalidArgument, "[grammar] token {} ('{}') is not allowed here", id,
           brief_text(vocabulary.piece(id)));
    }
    active_ = next->active;
    at_ = next->at;
    search_ = next->search;
  }
  accepted_.push_back(id);
}

bool GrammarState::is_complete() const {
  return finished_ || !active_ || matcher_->is_complete(at_);
}

Json GrammarState::save_state() const {
  return {{"version", kStateVersion}, {"tokens", accepted_}};
}

void GrammarState::load_state(const Json& state) {
  std::vector<TokenId> tokens;
  try {
    if (state.at("version").get<int>() != kStateVersion) throw Error(ErrorCode::kCorruptData, "version");
    tokens = state.at("tokens").get<std::vector<TokenId>>();
  } catch (const std::exception&) {
    fail(ErrorCode::kCorruptData, "[load grammar state] expected version {} and a list of tokens, found something else",
         kStateVersion);
  }
  GrammarState replay(*this);
  replay.active_ = lazy_ == nullptr;
  replay.finished_ = false;
  replay.at_ = matcher_->start();
  replay.search_ = ByteMatcher::kStart;
  replay.accepted_.clear();
  try {
    for (const TokenId id : tokens) replay.accept(id);
  } catch (const Error& e) {
    fail(ErrorCode::kCorruptData, "[load grammar state] the saved tokens do not fit: {}", e.what());
  }
  *this = std::move(replay);
}

}  // namespace mneme
