#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "engine/grammar/grammar_state.h"
#include "engine/plan.h"
#include "engine/tokenizer_view.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/model_file.h"

namespace mneme {

/// A model that is ready to run inside a memory limit: file, weights, vocabulary, plan and working memory.
///
/// The ledger is the caller's and outlives the engine. One thread of control runs passes at a time (the scheduler's, or
/// a command's); what it reads from model() and tokenizer() is immutable.
class Engine {
 public:
  /// `path` is a file, a folder or the name of a pulled model. Opens, plans, refuses what does not fit before loading
  /// anything, then loads. Sets the ledger's limit to the plan's. Shows a progress bar on a terminal. Throws Error.
  static std::unique_ptr<Engine> load(const std::string& path, const PlanRequest& request, Ledger& ledger);

  /// Only opens and plans: nothing of the weights is read.
  static std::unique_ptr<Engine> plan_only(const std::string& path, const PlanRequest& request, Ledger& ledger);

  const Model& model() const { return *model_; }
  const ModelFile& file() const { return file_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// The same vocabulary for samplers and grammars; lives as long as the engine.
  const VocabularyView& vocabulary() const { return *vocabulary_; }
  /// A fresh state of a grammar in GBNF over this vocabulary. The vocabulary's trie is built once, when it is first
  /// needed or before the plan is made that keeps room for grammars (PlanRequest::grammar). What the grammar takes is
  /// counted as Tag::kCache. Throws Error with the line and column of what is wrong, Error(kOutOfBudget).
  std::unique_ptr<GrammarState> make_grammar(std::string_view gbnf);
  const MemoryPlan& plan() const { return plan_; }
  /// Tells apart everything that answers depend on: the model's file, adapters and their scales. States of one identity and
  /// one policy of keys and values may be exchanged.
  std::string identity() const;
  const StateOptions& state_options() const { return state_options_; }
  /// Keeps keys and values of later sequences another way. The context stays as long as the limit allows and never
  /// grows; sequences that exist keep their own form. Throws Error(kOutOfBudget) when not even a short context fits;
  /// then nothing changed.
  void change_kv(const KvPolicy& kv);
  Ledger& ledger() const { return ledger_; }
  Workspace& workspace() { return *workspace_; }

  /// Changes the memory limit while running, from any thread. When more is in use, holders give back what they can; BitStack
  /// weights lose blocks (at once, or before the next pass), and get them back when the limit grows: as many as the plan's
  /// other rows leave. Returns the bytes by which use still exceeds the limit; nothing new is admitted until it holds.
  uint64_t set_memory_limit(uint64_t bytes);
  /// The BitStack blocks of the model, or null.
  const BlockStack* stack() const { return model_->weights.stack.get(); }

  /// An empty sequence whose context may grow to the plan's.
  std::unique_ptr<SequenceState> make_state() const { return model_->make_state(state_options_, ledger_); }

  /// Appends tokens to one sequence in passes of at most the plan's batch. `each(first, n, hidden)` is called after
  /// each pass with the index of its first token, the number of rows and the rows before the output norm [n, E]. Throws
  /// Error(kInvalidArgument) for ids outside the vocabulary, Error(kContextOverflow) with both numbers when the
  /// sequence would grow too long; then nothing was appended. Throws Error(kIo) when the state failed; see
  /// SequenceState::trouble().
  void run(SequenceState& state, std::span<const TokenId> tokens,
           FunctionRef<void(size_t first, size_t n, const float* hidden)> each, TokenRole role = TokenRole::kGiven);

  /// Refuses ids outside the vocabulary.
  void check_tokens(std::span<const TokenId> tokens) const;
  /// Refuses to let a sequence of `n_tokens` grow by `n_more`.
  void check_room(int64_t n_tokens, uint64_t n_more) const;

 private:
  Engine(ModelFile file, Ledger& ledger) : file_(std::move(file)), ledger_(ledger) {}
  static std::unique_ptr<Engine> open(const std::string& path, const PlanRequest& request, Ledger& ledger);

  ModelFile file_;
  Ledger& ledger_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Adapters> adapters_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<TokenizerView> vocabulary_;
  std::shared_ptr<const VocabularyTrie> trie_;
  PlanRequest request_;
  FixedBytes fixed_;
  MemoryPlan plan_;
  StateOptions state_options_;
  Reservation runtime_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace mneme
