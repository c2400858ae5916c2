#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "eval/memory_recall.h"
#include "recall/open_embedder.h"

namespace mneme::cli {
namespace {

struct MemoryCommand {
  std::string suite = "locomo", file, embedding_model, weights;
  std::vector<std::string> conversations, units;
  MemoryRecallOptions options;
};

std::vector<LocomoConversation> read_conversations(const MemoryCommand& command) {
  std::vector<LocomoConversation> all = parse_locomo(read_text_file(command.file), command.file);
  if (command.conversations.empty()) return all;
  std::vector<LocomoConversation> chosen;
  for (const std::string& id : command.conversations) {
    const auto at = std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.id == id; });
    if (at == all.end()) {
      std::string known;
      for (const auto& each : all) known += (known.empty() ? "" : ", ") + each.id;
      fail(ErrorCode::kInvalidArgument, "[eval memory] --conversation: expected one of {}, found '{}'", known,
           brief_text(id));
    }
    chosen.push_back(*at);
  }
  return chosen;
}

void print_rows(const MemoryReport& report, uint64_t seed) {
  fmt::print("{} conversations, {} turns, {} questions ({} left out: no evidence that is a turn), added in {:.1f} s\n",
             report.n_conversations, report.n_turns, report.n_questions, report.n_without_evidence,
             report.ingest_seconds);
  fmt::print("recall of evidence in %, by category\n");
  fmt::print("{:<12} {:<8} {:>3} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>9}\n", "unit", "channel", "k", "1",
             "2", "3", "4", "5", "all", "p50 ms", "p95 ms", "tokens");
  for (const MemoryRecall& row : report.rows) {
    for (size_t cut = 0; cut < row.cuts.size(); ++cut) {
      fmt::print("{:<12} {:<8} {:>3}", unit_name(row.unit), channel_name(row.channel), row.cuts[cut]);
      for (const int category : {1, 2, 3, 4, 5, 0}) fmt::print(" {:>6.1f}", 100 * row.mean(category, cut));
      if (row.cuts[cut] == 10) {
        if (row.p50_ms > 0) fmt::print(" {:>8.2f} {:>8.2f}", row.p50_ms, row.p95_ms);
        if (row.p50_ms <= 0) fmt::print(" {:>17}", "");
        fmt::print(" {:>9.0f}", row.context_tokens);
      }
      fmt::print("\n");
    }
  }
  fmt::print("10 results of all {:.0f} tokens of a conversation (estimated)\n", report.conversation_tokens);
  for (const MemoryRecall& row : report.rows) {
    if (row.channel != MemoryChannel::kHybrid) continue;
    for (const MemoryRecall& base : report.rows) {
      if (base.unit != row.unit || base.channel != MemoryChannel::kBm25) continue;
      fmt::print("hybrid - bm25, {}s at {} (95 %):", unit_name(row.unit), row.cuts[1]);
      for (const int category : {1, 2, 3, 4, 5, 0}) {
        const Interval gain = paired_bootstrap(row, base, category, 1, seed);
        fmt::print("  {}: {:+.1f} [{:+.1f}, {:+.1f}]", category == 0 ? "all" : std::to_string(category),
                   100 * gain.difference, 100 * gain.low, 100 * gain.high);
      }
      fmt::print("\n");
    }
  }
}

void run_memory(MemoryCommand& command, const GlobalOptions& global) {
  if (command.suite != "locomo") {
    fail(ErrorCode::kInvalidArgument, "[eval memory] --suite: expected locomo, found '{}'", brief_text(command.suite));
  }
  const std::vector<LocomoConversation> conversations = read_conversations(command);
  if (!command.weights.empty()) {
    const Json json = parse_json(read_text_file(command.weights), command.weights);
    command.options.weights = recall::search_weights_from_json(json);
  }
  if (!command.units.empty()) {
    std::erase_if(command.options.units, [&](MemoryUnit unit) {
      return std::find(command.units.begin(), command.units.end(), unit_name(unit)) == command.units.end();
    });
  }
  Ledger ledger;
  const std::unique_ptr<recall::Embedder> embedder =
      command.embedding_model.empty() ? nullptr : recall::open_embedder(command.embedding_model, ledger);
  command.options.embedder = embedder.get();
  uint64_t n = 0;
  for (const LocomoConversation& each : conversations) n += each.questions.size();
  Progress progress("questions", std::max<uint64_t>(1, n * command.options.units.size()), "questions");
  const MemoryReport report =
      measure_memory_recall(conversations, command.options, [&](uint64_t done, uint64_t) { progress.update(done); });
  if (global.json) {
    fmt::print("{}\n", to_json(report, command.options).dump(2));
  } else {
    print_rows(report, command.options.seed);
  }
}

}  // namespace

void add_eval_memory(CLI::App& eval, GlobalOptions& global) {
  auto memory = std::make_shared<MemoryCommand>();
  CLI::App* command = eval.add_subcommand("memory", "How much of the evidence of questions long-term memory finds");
  command->add_option("FILE", memory->file, "Conversations with questions, e.g. locomo10.json")->required();
  command->add_option("--suite", memory->suite, "Format and protocol: locomo")->capture_default_str();
  command->add_option("--conversation", memory->conversations,
                      "Only this one, e.g. conv-26; may be given several times");
  command->add_option("--unit", memory->units, "Only these: turn, session, observation")
      ->delimiter(',')
      ->check(CLI::IsMember({"turn", "session", "observation"}));
  command->add_option("--embed", memory->embedding_model, "Embedding model: vectors too");
  command->add_option("--weights", memory->weights, "JSON file with weights, as for recall");
  command->add_option("--diversity", memory->options.diversity, "As for recall")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--store", memory->options.store, "Keep the store at this path (default: a temporary one)");
  command->add_option("--seed", memory->options.seed, "Of the resamples that intervals come from")
      ->capture_default_str();
  command->footer(
      "Replays conversations in the order of time, each for a user of its own, then asks; needs no language model.\n"
      "Compares the memory's search with plain BM25, over turns, whole sessions and extracted observations.\n"
      "Example: mneme eval memory --suite locomo locomo10.json");
  command->callback([memory, &global] { run_memory(*memory, global); });
}

}  // namespace mneme::cli
