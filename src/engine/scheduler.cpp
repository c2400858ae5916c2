#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "engine/sampling/sampler.h"
#include "engine/stop_strings.h"
#include "engine/tokenizer_view.h"

namespace mneme {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point a, Clock::time_point b) { return std::chrono::duration<double>(b - a).count(); }

size_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const auto [at, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(at - a.begin());
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEnd: return "end";
    case FinishReason::kStopString: return "stop_string";
    case FinishReason::kLength: return "length";
    case FinishReason::kContext: return "context";
    case FinishReason::kCancelled: return "cancelled";
    case FinishReason::kError: return "error";
  }
  return "unknown";
}

/// A request on its way: waiting, reading its prompt, answering.
struct Scheduler::Active {
  RequestId id;
  GenerationRequest request;
  std::shared_ptr<Conversation> conversation;
  TokenizerView vocabulary;
  Sampler sampler;
  StreamingDetokenizer detokenizer;
  StopStrings stops;
  GenerationResult result;
  uint64_t max_total;          ///< Tokens of prompt and answer at most.
  Reservation headroom;        ///< Budget of the tokens to come.
  size_t n_read = 0;           ///< Prompt tokens in the state.
  PrefixMatch match;           ///< Held while the request waits, so that its beginning does not go meanwhile.
  bool looked_up = false;      ///< The match was looked for.
  bool without_cache = false;  ///< What was found could not be used.
  TokenId next = -1;           ///< Sampled, not yet in the state.
  Clock::time_point started, first_token;
  bool cancelled = false;
  FetchCounts fetched_before;  ///< By the state, before this request.

  Active(RequestId request_id, GenerationRequest&& r, const Engine& engine, uint64_t total)
      : id(request_id),
        request(std::move(r)),
        conversation(request.conversation ? request.conversation : std::make_shared<Conversation>()),
        vocabulary(engine.tokenizer()),
        sampler(request.sampling, vocabulary),
        detokenizer(engine.tokenizer(), request.prompt.back()),
        stops(request.stop),
        max_total(total) {}

  bool reading() const { return n_read < request.prompt.size(); }
  SequenceState& state() { return *conversation->state; }
};

Scheduler::Scheduler(Engine& engine, PrefixCache* cache)
    : engine_(engine), cache_(cache), deferral_(engine.ledger().page_pool()) {}
Scheduler::~Scheduler() = default;

Scheduler::RequestId Scheduler::submit(GenerationRequest request) {
  if (!engine_.model().output) {
    fail(ErrorCode::kUnsupported, "[generate] {} is an encoder: it makes embeddings only", engine_.file().path());
  }
  if (request.prompt.empty()) fail(ErrorCode::kInvalidArgument, "[generate] expected at least one prompt token");
  engine_.check_tokens(request.prompt);
  engine_.check_room(0, request.prompt.size() + request.max_tokens);
  const uint64_t context = engine_.plan().context;
  if (request.max_tokens == 0 && request.prompt.size() == context) {
    engine_.check_room(static_cast<int64_t>(context), 1);
  }
  const uint64_t total = request.max_tokens > 0 ? request.prompt.size() + request.max_tokens : context;
  const std::lock_guard lock(mutex_);
  auto active = std::make_unique<Active>(next_id_, std::move(request), engine_, total);
  active->result.n_prompt = static_cast<uint32_t>(active->request.prompt.size());
  incoming_.push_back(std::move(active));
  ++n_pending_;
  return next_id_++;
}

void Scheduler::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(id);
}

size_t Scheduler::n_pending() const {
  const std::lock_guard lock(mutex_);
  return n_pending_;
}

void Scheduler::take_submissions() {
  std::vector<RequestId> cancelled;
  {
    const std::lock_guard lock(mutex_);
    for (auto& active : incoming_) waiting_.push_back(std::move(active));
    incoming_.clear();
    cancelled.swap(cancelled_);
  }
  for (RequestId id : cancelled) {
    for (auto& active : running_) active->cancelled |= active->id == id;
    for (auto& active : waiting_) active->cancelled |= active->id == id;
  }
}

/// Prepares the sequence and reserves its worst case. False when there is no room now; alone, that is final.
bool Scheduler::try_start(Active& active, bool alone) {
  Conversation& conversation = *active.conversation;
  const std::vector<TokenId>& prompt = active.request.prompt;
  size_t shared = common_prefix(conversation.tokens, prompt);
  shared = std::min(shared, prompt.size() - 1);  // the last token's logits are needed
  if (conversation.state && shared < conversation.tokens.size() &&
      !conversation.state->truncate(static_cast<int64_t>(shared))) {
    conversation.state.reset();
  }
  if (!conversation.state) {
    conversation.state = engine_.make_state();
    shared = 0;
  }
  conversation.tokens.resize(shared);
  const bool use_cache = cache_ != nullptr && active.request.cache.use && !active.without_cache;
  bool fresh = false;
  if (use_cache && !active.looked_up && conversation.state->shares_pages()) {
    active.match = look_up(active);
    active.looked_up = fresh = true;
  }
  // What is shared with the cache needs no room of its own.
  const uint64_t from_cache = active.match.n_tokens > shared ? active.match.shared_bytes() : 0;
  const uint64_t worst = engine_.model().state_bytes(engine_.state_options(), active.max_total);
  const auto reserve = [&](uint64_t held) {
    const uint64_t more = worst > held ? worst - held : 0;
    auto headroom = engine_.ledger().try_reserve(Tag::kKv, more, "context of a request");
    if (headroom) active.headroom = std::move(*headroom);
    return bool(headroom);
  };
  bool reserved = reserve(from_cache > 0 ? from_cache : conversation.state->bytes());
  if (!reserved && !active.match.blocks.empty() && (from_cache == 0 || alone)) {
    active.match = {};  // what it holds may be what is missing
    fresh = false;
    reserved = reserve(conversation.state->bytes());
  }
  if (!reserved) {
    if (alone) {  // throws the numbers
      const uint64_t held = conversation.state->bytes();
      active.headroom = engine_.ledger().reserve(Tag::kKv, worst > held ? worst - held : 0, "context of a request");
    } else {
      return false;
    }
  }
  active.started = Clock::now();
  active.n_read = shared;
  if (use_cache && !reuse_cached(active, shared, fresh ? active.match : look_up(active))) {
    active.headroom.release();
    active.match = {};
    active.without_cache = true;
    return alone && try_start(active, alone);
  }
  active.match = {};
  if (active.request.sampler_state.is_null()) {
    for (TokenId token : prompt) active.sampler.accept(token);  // penalties see the prompt
  } else {
    active.sampler.load_state(active.request.sampler_state);
  }
  active.result.n_reused = static_cast<uint32_t>(active.n_read);
  active.fetched_before = active.state().fetches();
  return true;
}

PrefixMatch Scheduler::look_up(const Active& active) const {
  return cache_->match(active.request.cache.tenant, active.request.prompt, active.request.prompt.size() - 1);
}

/// Takes the beginning of the prompt from the cache when that has more of it than the sequence holds already. False when
/// that failed and there is no room any more to compute it instead.
bool Scheduler::reuse_cached(Active& active, size_t shared, const PrefixMatch& match) {
  const std::vector<TokenId>& prompt = active.request.prompt;
  active.result.match_stop = match.stop;
  active.result.n_equal = static_cast<uint32_t>(match.n_equal);
  if (match.n_tokens <= shared) return true;
  Conversation& conversation = *active.conversation;
  const auto budget = [&](uint64_t tokens) { return engine_.model().state_bytes(engine_.state_options(), tokens); };
  const uint64_t worst = budget(active.max_total), held = budget(match.n_tokens);
  conversation = Conversation();
  try {
    active.headroom.resize(worst > held ? worst - held : 0);
    conversation.state = engine_.make_state();
    match.load(conversation.state->layers());
    conversation.state->advance(static_cast<int64_t>(match.n_tokens));
    conversation.tokens.assign(prompt.begin(), prompt.begin() + static_cast<long>(match.n_tokens));
    active.n_read = match.n_tokens;
    active.result.n_cached = static_cast<uint32_t>(match.n_tokens);
    return true;
  } catch (const Error&) {  // another thread took the room meanwhile, or a block does not fit: computed instead
    conversation = Conversation();
    conversation.state = engine_.make_state();
    active.n_read = 0;
    active.result.match_stop = MatchStop::kUnreadable;
  }
  try {
    active.headroom.resize(worst);
  } catch (const Error&) {
    return false;
  }
  return true;
}

/// Leaves pages that became full in the cache.
void Scheduler::keep_cached(Active& active, int64_t n_before) {
  const int64_t n_tokens = active.state().n_tokens();
  if (cache_ == nullptr || !active.request.cache.keep || n_before / kPageTokens == n_tokens / kPageTokens) return;
  cache_->keep(active.request.cache.tenant, active.conversation->tokens, active.state().layers(),
               active.request.cache.rules, ns_per_token_);
}

void Scheduler::admit() {
  std::erase_if(waiting_, [&](std::unique_ptr<Active>& active) {
    if (!active->cancelled) return false;
    finish(*active, FinishReason::kCancelled);
    return true;
  });
  while (!waiting_.empty() && running_.size() < engine_.plan().n_sequences) {
    Active& active = *waiting_.front();
    try {
      if (!try_start(active, running_.empty())) return;
      running_.push_back(std::move(waiting_.front()));
    } catch (const Error& e) {
      finish(active, FinishReason::kError, e.what());
    }
    waiting_.pop_front();
  }
}

bool Scheduler::step() {
  take_submissions();
  for (auto& active : running_) {
    if (active->cancelled) finish(*active, FinishReason::kCancelled);
  }
  const auto drop_finished = [&] { std::erase_if(running_, [](const auto& active) { return active->max_total == 0; }); };
  drop_finished();
  admit();
  // All running requests have their worst case reserved: what is free now is nobody's.
  if (BlockStack* stack = engine_.model().weights.stack.get()) {
    const BlockStack::Status status = stack->status();
    // Blocks are worth more than pages that are only kept at hand.
    if (status.loaded < std::min(status.target, status.usable)) {
      engine_.ledger().page_pool().reclaim(Tier::kRam, ~uint64_t{0});
    }
    stack->regrow();
  }
  if (running_.empty()) return false;
  pass();
  drop_finished();
  return true;
}

void Scheduler::run() {
  while (step()) {
  }
}

void Scheduler::pass() {
  struct Part {
    Active* active;
    size_t begin, n;
    bool wants_logits;
  };
  std::vector<TokenId> tokens;
  std::vector<int32_t> positions;
  std::vector<Part> parts;
  const auto add = [&](Active& active, std::span<const TokenId> piece, bool wants_logits) {
    parts.push_back({&active, tokens.size(), piece.size(), wants_logits});
    for (size_t i = 0; i < piece.size(); ++i) {
      tokens.push_back(piece[i]);
      positions.push_back(static_cast<int32_t>(active.state().n_tokens() + static_cast<int64_t>(i)));
    }
  };
  for (auto& active : running_) {
    if (!active->reading() && tokens.size() < engine_.plan().batch) add(*active, {&active->next, 1}, true);
  }
  for (auto& active : running_) {
    const size_t room = engine_.plan().batch - tokens.size();
    if (!active->reading() || room == 0) continue;
    const size_t n = std::min(room, active->request.prompt.size() - active->n_read);
    const std::span piece(active->request.prompt.data() + active->n_read, n);
    add(*active, piece, active->n_read + n == active->request.prompt.size());
  }

  const auto pass_started = Clock::now();
  std::vector<SequenceSlice> slices;
  std::vector<size_t> rows;
  for (const Part& part : parts) {
    // What the state is about to grow by moves from the headroom to the state's own reservations.
    Active& active = *part.active;
    const uint64_t after = engine_.model().state_bytes(
        engine_.state_options(), static_cast<uint64_t>(active.state().n_tokens()) + part.n);
    const uint64_t worst = engine_.model().state_bytes(engine_.state_options(), active.max_total);
    active.headroom.resize(std::min(active.headroom.bytes(), worst > after ? worst - after : 0));
    slices.push_back({&active.state(), part.begin, part.n, active.reading() ? TokenRole::kGiven : TokenRole::kGenerated});
    if (part.wants_logits) rows.push_back(part.begin + part.n - 1);
  }
  Workspace& workspace = engine_.workspace();
  const Workspace::Scope scope(workspace);
  const float* hidden = engine_.model().forward({tokens, positions, slices}, workspace);
  const size_t n_logits = engine_.model().n_logits();
  float* const logits = rows.empty() ? nullptr : workspace.floats(rows.size() * n_logits);
  if (!rows.empty()) engine_.model().logits(hidden, rows, workspace, logits);

  const double pass_ns = 1e9 * seconds_between(pass_started, Clock::now()) / static_cast<double>(tokens.size());
  ns_per_token_ = ns_per_token_ == 0 ? pass_ns : 0.75 * ns_per_token_ + 0.25 * pass_ns;

  size_t row = 0;
  for (const Part& part : parts) {
    Active& active = *part.active;
    const float* const own_logits = part.wants_logits ? logits + row++ * n_logits : nullptr;
    if (const std::string trouble = active.state().trouble(); !trouble.empty()) {
      *active.conversation = Conversation();
      finish(active, FinishReason::kError, trouble, ErrorCode::kIo);
      continue;
    }
    active.conversation->tokens.insert(active.conversation->tokens.end(), tokens.begin() + static_cast<long>(part.begin),
                                       tokens.begin() + static_cast<long>(part.begin + part.n));
    keep_cached(active, active.state().n_tokens() - static_cast<int64_t>(part.n));
    if (active.reading()) active.n_read += part.n;
    if (own_logits == nullptr) continue;
    const std::span<const float> out(own_logits, engine_.model().hyper.n_vocab);
    try {
      deliver(active, out);
    } catch (const Error& e) {
      finish(active, FinishReason::kError, e.what());
    }
  }
}

/// Chooses the next token of one sequence and hands it to the request.
void Scheduler::deliver(Active& active, std::span<const float> logits) {
  GenerationResult& result = active.result;
  GenerationRequest& request = active.request;
  const auto now = Clock::now();
  if (result.tokens.empty()) {
    result.prompt_seconds = seconds_between(active.started, now);
    active.first_token = now;
  }
  GeneratedToken generated;
  generated.token = active.sampler.sample(logits, request.grammar.get());
  if (request.n_logprobs >= 0) {
    const Logprobs logprobs = token_logprobs(logits, generated.token, static_cast<size_t>(request.n_logprobs));
    generated.logprob = logprobs.chosen.logprob;
    generated.top = logprobs.top;
  }
  active.sampler.accept(generated.token);
  if (engine_.tokenizer().is_end_of_generation(generated.token)) {
    finish(active, FinishReason::kEnd);
    return;
  }
  if (request.grammar) request.grammar->accept(generated.token);
  result.tokens.push_back(std::move(generated));
  result.decode_seconds = seconds_between(active.first_token, Clock::now());
  active.next = result.tokens.back().token;

  GenerationEvent event;
  event.token = &result.tokens.back();
  event.sampler = &active.sampler;
  event.text = active.stops.push(active.detokenizer.push(active.next));
  result.text += event.text;
  if (request.on_event) request.on_event(event);
  if (active.stops.stopped()) {
    result.stop_string = active.stops.found();
    finish(active, FinishReason::kStopString);
  } else if (request.max_tokens > 0 && result.tokens.size() >= request.max_tokens) {
    finish(active, FinishReason::kLength);
  } else if (request.prompt.size() + result.tokens.size() >= engine_.plan().context) {
    finish(active, FinishReason::kContext);
  }
}

/// Sends the last event and marks the request as done (max_total = 0); the sequence stays with its conversation.
void Scheduler::finish(Active& active, FinishReason reason, const std::string& error, ErrorCode code) {
  GenerationResult& result = active.result;
  result.reason = reason;
  result.error = error;
  result.error_code = code;
  if (active.conversation->state) {
    result.fetches = active.state().fetches();
    result.fetches -= active.fetched_before;
  }
  GenerationEvent event;
  if (reason != FinishReason::kStopString) event.text = active.stops.push(active.detokenizer.finish()) + active.stops.finish();
  result.text += event.text;
  event.finished = &result;
  active.headroom.release();
  active.max_total = 0;
  if (!active.request.conversation) active.conversation.reset();
  {
    const std::lock_guard lock(mutex_);
    --n_pending_;
  }
  if (active.request.on_event) active.request.on_event(event);
}

GenerationResult generate(Engine& engine, GenerationRequest request, PrefixCache* cache) {
  GenerationResult result;
  const auto forward = std::move(request.on_event);
  request.on_event = [&](const GenerationEvent& event) {
    if (forward) forward(event);
    if (event.finished != nullptr) result = *event.finished;
  };
  Scheduler scheduler(engine, cache);
  scheduler.submit(std::move(request));
  scheduler.run();
  if (result.reason == FinishReason::kError) throw Error(result.error_code, result.error);
  return result;
}

}  // namespace mneme
