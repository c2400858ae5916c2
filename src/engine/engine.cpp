#include "engine/engine.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/progress.h"
#include "budget/resident.h"
#include "weights/model_fingerprint.h"
#include "weights/store/model_store.h"

namespace mneme {

std::unique_ptr<Engine> Engine::open(const std::string& path, const PlanRequest& request, Ledger& ledger) {
  std::unique_ptr<Engine> engine(new Engine(open_model(resolve_model(path), ledger), ledger));
  engine->model_ = Model::build(engine->file_, ledger, request.context.value_or(0));
  engine->adapters_ = std::make_unique<Adapters>(request.adapters, engine->file_, *engine->model_);
  engine->tokenizer_ = Tokenizer::load(engine->file_.metadata());
  engine->vocabulary_ = std::make_unique<TokenizerView>(*engine->tokenizer_);
  uint64_t grammar_bytes = 0, mask_bytes = 0;
  if (request.grammar) {
    engine->trie_ = std::make_shared<const VocabularyTrie>(*engine->vocabulary_, ledger);
    grammar_bytes = engine->trie_->bytes();
    mask_bytes = TokenMatcher::usual_bytes(engine->vocabulary_->size());
  }
  const uint64_t counted = ledger.used(Tier::kRam);
  const uint64_t resident = resident_bytes();
  engine->request_ = request;
  engine->fixed_ = {resident > counted ? resident - counted : 0, grammar_bytes, engine->adapters_->bytes(), mask_bytes};
  engine->plan_ = make_plan(*engine->model_, request, engine->fixed_);
  engine->request_.n_sequences = engine->plan_.n_sequences;
  engine->state_options_ = {request.kv, engine->plan_.context, engine->plan_.batch};
  return engine;
}

std::unique_ptr<Engine> Engine::plan_only(const std::string& path, const PlanRequest& request, Ledger& ledger) {
  return open(path, request, ledger);
}

std::unique_ptr<Engine> Engine::load(const std::string& path, const PlanRequest& request, Ledger& ledger) {
  std::unique_ptr<Engine> engine = open(path, request, ledger);
  const MemoryPlan& plan = engine->plan_;
  ledger.set_limit(Tier::kRam, plan.limit);
  engine->runtime_ = ledger.reserve(Tag::kRuntime, plan.bytes(Tag::kRuntime), "program, libraries, vocabulary");
  {
    Progress progress("loading", engine->file_.tensor_bytes(), "bytes");
    engine->model_->weights.load(ledger, plan.pack, plan.stack_blocks, [&](uint64_t done) { progress.update(done); });
  }
  engine->adapters_->load(ledger);
  engine->workspace_ = std::make_unique<Workspace>(ledger, plan.bytes(Tag::kActivation));
  return engine;
}

uint64_t Engine::set_memory_limit(uint64_t bytes) {
  ledger_.set_limit(Tier::kRam, bytes);
  if (BlockStack* stack = model_->weights.stack.get()) {
    // What is planned for the rest stays free for it; what is in use beyond the plan, but caches, is taken as it is.
    const uint64_t held = stack->status().bytes, cached = ledger_.used(Tier::kRam, Tag::kCache);
    const uint64_t used = ledger_.used(Tier::kRam);
    const uint64_t others =
        std::max(plan_.total() - plan_.stack_bytes, used - std::min(used, held + cached) + plan_.bytes(Tag::kCache));
    stack->set_target(stack->fitting(bytes > others ? bytes - others : 0));
  }
  const uint64_t used = ledger_.used(Tier::kRam);
  return used > bytes ? used - bytes : 0;
}

std::unique_ptr<GrammarState> Engine::make_grammar(std::string_view gbnf) {
  if (!trie_) trie_ = std::make_shared<const VocabularyTrie>(*vocabulary_, ledger_);
  std::shared_ptr<const Grammar> grammar;
  {
    const Reservation scratch =
        ledger_.reserve(Tag::kScratch, gbnf.size() * Grammar::kCompileBytes, "compiling a grammar");
    grammar = std::make_shared<const Grammar>(gbnf);
  }
  return std::make_unique<GrammarState>(TokenMatcher::create(std::move(grammar), trie_, ledger_));
}

void Engine::change_kv(const KvPolicy& kv) {
  PlanRequest request = request_;
  request.kv = kv;
  request.memory = ledger_.limit(Tier::kRam);
  request.batch = plan_.batch;  // working memory stays as it is
  request.context = plan_.context;
  MemoryPlan plan;
  try {
    plan = make_plan(*model_, request, fixed_);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kOutOfBudget) throw;
    request.context.reset();  // as much as fits, which is less
    plan = make_plan(*model_, request, fixed_);
  }
  request_.kv = kv;
  plan_ = std::move(plan);
  state_options_ = {kv, plan_.context, plan_.batch};
}

std::string Engine::identity() const {
  return model_fingerprint(file_) + adapters_->identity();
}

void Engine::check_tokens(std::span<const TokenId> tokens) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || static_cast<uint32_t>(tokens[i]) >= model_->hyper.n_vocab) {
      fail(ErrorCode::kInvalidArgument, "[run] token {} of the input: expected an id of 0 to {}, found {}", i,
           model_->hyper.n_vocab - 1, tokens[i]);
    }
  }
}

void Engine::check_room(int64_t n_tokens, uint64_t n_more) const {
  const uint64_t total = static_cast<uint64_t>(n_tokens) + n_more;
  if (total <= plan_.context) return;
  throw Error(ErrorCode::kContextOverflow,
              fmt::format("[run] the context holds {} tokens, but {} are needed ({} present, {} new)", plan_.context,
                          total, n_tokens, n_more),
              "shorten the input or raise --context");
}

void Engine::run(SequenceState& state, std::span<const TokenId> tokens,
                 FunctionRef<void(size_t, size_t, const float*)> each, TokenRole role) {
  check_tokens(tokens);
  check_room(state.n_tokens(), tokens.size());
  std::vector<int32_t> positions;
  for (size_t first = 0; first < tokens.size(); first += plan_.batch) {
    const size_t n = std::min<size_t>(plan_.batch, tokens.size() - first);
    positions.resize(n);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(state.n_tokens()));
    const SequenceSlice slice{&state, 0, n, role};
    const Workspace::Scope scope(*workspace_);
    const float* hidden = model_->forward({tokens.subspan(first, n), positions, {&slice, 1}}, *workspace_);
    if (const std::string trouble = state.trouble(); !trouble.empty()) throw Error(ErrorCode::kIo, trouble);
    each(first, n, hidden);
  }
}

}  // namespace mneme
